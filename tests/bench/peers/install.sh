#!/bin/sh
# Debian's Postfix and Dovecot for `make bench`, which starts private instances of them. Nothing of them is started,
# enabled or configured here, and what is installed already stays as it is.
set -eu

missing=
for package in postfix dovecot-imapd dovecot-lmtpd; do
    dpkg-query --show --showformat='${Status}' "$package" 2> /dev/null | grep -q ' installed$' || missing="$missing $package"
done
[ -n "$missing" ] || { echo "Postfix and Dovecot are installed"; exit 0; }
command -v apt-get > /dev/null || { echo "this is no Debian: install Postfix and Dovecot (with LMTP) by hand"; exit 1; }
[ "$(id -u)" = 0 ] || { echo "installing$missing needs root: sudo make bench-peers"; exit 1; }

# Debian starts a service that it installs, unless this says no.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod +x "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections
apt-get -o DPkg::Lock::Timeout=300 update -qq
# --no-remove: another mail server of this machine is not pushed out for a benchmark.
# shellcheck disable=SC2086
apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends --no-remove $missing > /dev/null
for service in postfix dovecot; do
    case "$missing" in
        *$service*)
            if command -v systemctl > /dev/null; then
                systemctl disable --quiet "$service" > /dev/null 2>&1 || true
            elif command -v update-rc.d > /dev/null; then
                update-rc.d "$service" disable > /dev/null 2>&1 || true
            fi ;;
    esac
done
echo "installed:$missing; neither started nor enabled"
