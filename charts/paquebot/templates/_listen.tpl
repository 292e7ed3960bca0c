{{/* The addresses on which pods listen: IPv4, IPv6, or both. */}}

{{- /*
The addresses of `listen`, as JSON: [::] serves both families. Without `listen`, those for the families that the mail
Services request.
*/}}
{{- define "paquebot.listenHosts" -}}
{{- $given := .Values.listen }}
{{- if kindIs "string" $given }}{{ $given = splitList "," $given }}{{ end }}
{{- $hosts := list }}
{{- range $given }}
  {{- with trim . }}{{ $hosts = append $hosts (ternary (printf "[%s]" .) . (and (contains ":" .) (not (hasPrefix "[" .)))) }}{{ end }}
{{- end }}
{{- if not $hosts }}
  {{- $hosts = list "0.0.0.0" }}
  {{- range include "paquebot.families" . | fromJson }}{{ if has "IPv6" . }}{{ $hosts = list "[::]" }}{{ end }}{{ end }}
{{- end }}
{{- /* [::] also serves IPv4: no other socket can bind the same port then. */}}
{{- if has "[::]" $hosts }}{{ $hosts = without $hosts "0.0.0.0" }}{{ end }}
{{- uniq $hosts | toJson }}
{{- end }}

{{- /* Part of the values to the families that its Service requests; none when the cluster decides. */}}
{{- define "paquebot.families" -}}
{{- $found := dict }}
{{- range $part := list "smtpIngress" "smtpIngress.submission" "imap" "pop3" }}
  {{- $service := (include "paquebot.valuesOf" (dict "root" $ "part" $part) | fromJson).service }}
  {{- $families := $service.ipFamilies | default list }}
  {{- if hasSuffix "DualStack" $service.ipFamilyPolicy }}{{ $families = list "IPv4" "IPv6" }}{{ end }}
  {{- if or (ne $part "smtpIngress.submission") $.Values.smtpIngress.submission.separate }}{{ $_ := set $found $part $families }}{{ end }}
{{- end }}
{{- toJson $found }}
{{- end }}

{{- /* A setting of a listener: every address with the port. (list $ 2143) */}}
{{- define "paquebot.listen" -}}
{{- $port := index . 1 }}
{{- $listeners := list }}
{{- range include "paquebot.listenHosts" (index . 0) | fromJsonArray }}{{ $listeners = append $listeners (printf "%s:%v" . $port) }}{{ end }}
{{- join "," $listeners }}
{{- end }}

{{- /* The address of a bundled engine, which listens on one. */}}
{{- define "paquebot.engineHost" -}}
{{- $hosts := include "paquebot.listenHosts" . | fromJsonArray }}
{{- ternary "::" (first $hosts | trimAll "[]") (has "[::]" $hosts) }}
{{- end }}

{{- define "paquebot.listenFaults" -}}
{{- $faults := list }}
{{- $hosts := include "paquebot.listenHosts" . | fromJsonArray }}
{{- $served := list }}
{{- range $hosts }}
  {{- $served = append $served (ternary "IPv6" "IPv4" (hasPrefix "[" .)) }}
  {{- if eq . "[::]" }}{{ $served = append $served "IPv4" }}{{ end }}
{{- end }}
{{- range $part, $families := include "paquebot.families" . | fromJson }}
  {{- range $families }}
    {{- if not (has . $served) }}
      {{- $faults = append $faults (printf "%s.service requests %s, but listen (%s) has no such address: leave listen out, or set [::] for both families" $part . (join ", " $hosts)) }}
    {{- end }}
  {{- end }}
{{- end }}
{{- toJson $faults }}
{{- end }}
