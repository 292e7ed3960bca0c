{{/*
How the pods connect to NATS, S3 and PostgreSQL, bundled or the user's own.

A service is named as in the code (`smtp_ingress`); its objects and its Secret are named with hyphens (`smtp-ingress`).
Each template for one service takes (dict "root" $ "service" "smtp_ingress").
*/}}

{{- /* What each service uses. `owner` is the owner of the database, for migrations. */}}
{{- define "paquebot.uses" -}}
smtp_ingress: [nats, s3]
recipient_validation: [nats, postgres, admin]
delivery: [nats, s3, postgres]
relay: [nats, s3, postgres]
imap: [nats, s3, postgres]
pop3: [nats, s3, postgres]
janitor: [nats, s3, postgres]
migrate: [nats, s3, owner]
{{- end }}

{{- /* The Secret with a service's credentials; for `engines`, the logins that the bundled engines accept. */}}
{{- define "paquebot.secretName" -}}
{{- get .root.Values.secrets.existing .service | default (include "paquebot.madeSecretName" .) -}}
{{- end }}

{{- define "paquebot.madeSecretName" -}}
{{- printf "%s-%s" (include "paquebot.fullname" .root) (replace "_" "-" .service) -}}
{{- end }}

{{- /*
All credentials that the chart creates, as JSON: {secrets: {SERVICE: {KEY: VALUE}}, engines: {FILE: VALUE}}. For a Secret
that the values name, only what it has in the cluster: the chart generates nothing for it.

They are computed once for a rendering, because a service's Secret and the engines' must match. Values of a Secret in
the cluster are kept, missing ones are generated. `lookup` finds nothing in `helm template` and in GitOps tools built on
it, so there the user creates the Secrets first and names them in `secrets.existing`.
*/}}
{{- define "paquebot.credentials" -}}
{{- if not (hasKey .Values "credentialsMade") }}
{{- $root := . }}
{{- $bundled := .Values.bundled.enabled }}
{{- $secrets := dict }}
{{- $engines := dict }}
{{- range $service, $uses := include "paquebot.uses" . | fromYaml }}
  {{- $name := include "paquebot.secretName" (dict "root" $root "service" $service) }}
  {{- $found := (lookup "v1" "Secret" $root.Release.Namespace $name).data | default dict }}
  {{- $keys := list }}
  {{- if and $bundled (has "nats" $uses) }}{{ $keys = concat $keys (list "nats-user" "nats-password") }}{{ end }}
  {{- if and $bundled (has "s3" $uses) }}{{ $keys = concat $keys (list "s3-access-key" "s3-secret-key") }}{{ end }}
  {{- if and $bundled (has "owner" $uses) }}{{ $keys = append $keys "postgres-password" }}{{ end }}
  {{- if and (has "postgres" $uses) (or $bundled (not (get $root.Values.postgres.roles.services $service))) }}
    {{- $keys = append $keys "postgres-password" }}
  {{- end }}
  {{- if has "admin" $uses }}{{ $keys = append $keys "admin-token" }}{{ end }}
  {{- $named := get $root.Values.secrets.existing $service }}
  {{- $values := dict }}
  {{- range $key := $keys }}
    {{- $kept := get $found $key | b64dec }}
    {{- if and (not $kept) (not $named) }}{{ $kept = ternary $service (randAlphaNum 32) (eq $key "nats-user") }}{{ end }}
    {{- if $kept }}{{ $_ := set $values $key $kept }}{{ end }}
  {{- end }}
  {{- if $named }}
    {{- $agree := or (not $bundled) (get $root.Values.secrets.existing "engines") (not (without $keys "admin-token")) }}
    {{- if not (or $agree $found) }}
      {{- fail (printf "secrets.existing.%s: Secret %s cannot be read, so the bundled engines cannot get its passwords; create it first, or set secrets.existing.engines too" $service $name) }}
    {{- end }}
    {{- range $key := $keys }}
      {{- if and $found (not (hasKey $found $key)) }}{{ fail (printf "secrets.existing.%s: Secret %s has no key %s" $service $name $key) }}{{ end }}
    {{- end }}
  {{- else if $values }}
    {{- $_ := set $secrets $service $values }}
  {{- end }}
  {{- if and $bundled $values }}
    {{- if has "nats" $uses }}{{ $_ := set $engines (printf "nats.%s" $service) (get $values "nats-password") }}{{ end }}
    {{- if has "s3" $uses }}
      {{- $_ := set $engines (printf "s3.%s" $service) (printf "%s:%s" (get $values "s3-access-key") (get $values "s3-secret-key")) }}
    {{- end }}
    {{- if has "owner" $uses }}{{ $_ := set $engines "postgres.owner" (get $values "postgres-password") }}{{ end }}
  {{- end }}
{{- end }}
{{- $_ := set .Values "credentialsMade" (dict "secrets" $secrets "engines" $engines) }}
{{- end }}
{{- toJson .Values.credentialsMade }}
{{- end }}

{{- /* Changes with the passwords that the engine reads at its start. (dict "root" $ "engine" "nats") */}}
{{- define "paquebot.accessChecksum" -}}
{{- $prefix := printf "%s." .engine }}
{{- $own := dict }}
{{- range $file, $value := (include "paquebot.credentials" .root | fromJson).engines }}
{{- if hasPrefix $prefix $file }}{{ $_ := set $own $file $value }}{{ end }}
{{- end }}
{{- toJson $own | sha256sum }}
{{- end }}

{{- /* Fails with one sentence when the values do not say where the engines are. */}}
{{- define "paquebot.checkEngines" -}}
{{- $v := .Values }}
{{- $given := list }}
{{- if $v.nats.url }}{{ $given = append $given "nats.url" }}{{ end }}
{{- if $v.s3.endpoint }}{{ $given = append $given "s3.endpoint" }}{{ end }}
{{- if $v.postgres.host }}{{ $given = append $given "postgres.host" }}{{ end }}
{{- if $v.bundled.enabled }}
  {{- if $given }}
    {{- fail (printf "bundled.enabled is true, so %s would be ignored: set bundled.enabled to false" (join ", " $given)) }}
  {{- end }}
{{- else }}
  {{- $missing := list "nats.url" "s3.endpoint" "postgres.host" }}
  {{- range $given }}{{ $missing = without $missing . }}{{ end }}
  {{- if not $v.postgres.owner.existingSecret }}{{ $missing = append $missing "postgres.owner.existingSecret" }}{{ end }}
  {{- $access := $v.s3.credentials }}
  {{- if not (or $access.existingSecret $access.services) }}{{ $missing = append $missing "s3.credentials.existingSecret" }}{{ end }}
  {{- if and $access.services (not $access.existingSecret) }}
    {{- range $service, $uses := include "paquebot.uses" . | fromYaml }}
      {{- if and (has "s3" $uses) (not (get $access.services $service)) }}
        {{- $missing = append $missing (printf "s3.credentials.services.%s" $service) }}
      {{- end }}
    {{- end }}
  {{- end }}
  {{- if $missing }}{{ fail (printf "bundled.enabled is false, so these must be set: %s" (join ", " $missing)) }}{{ end }}
{{- end }}
{{- end }}

{{- /* An env entry from a Secret's key. (list NAME SECRET KEY) */}}
{{- define "paquebot.fromSecret" -}}
- name: {{ index . 0 }}
  valueFrom:
    secretKeyRef: {name: {{ index . 1 | quote }}, key: {{ index . 2 | quote }}}
{{- end }}

{{- /* The env entries with which a service reaches the engines that it uses. */}}
{{- define "paquebot.engineEnv" -}}
{{- include "paquebot.checkEngines" .root }}
{{- $uses := get (include "paquebot.uses" .root | fromYaml) .service }}
{{- $parts := dict "nats" "paquebot.natsEnv" "s3" "paquebot.s3Env" "postgres" "paquebot.roleEnv" "owner" "paquebot.ownerEnv" }}
{{- range $uses }}
{{- with get $parts . }}
{{ include . $ | trim }}
{{- end }}
{{- end }}
{{- end }}

{{- define "paquebot.natsEnv" -}}
{{- $v := .root.Values }}
{{- $keys := $v.nats.credentials.keys }}
{{- if $v.bundled.enabled }}
- name: PAQUEBOT_NATS_URL
  value: nats://{{ include "paquebot.fullname" .root }}-nats:2422
{{ include "paquebot.fromSecret" (list "PAQUEBOT_NATS_USER" (include "paquebot.secretName" .) "nats-user") }}
{{ include "paquebot.fromSecret" (list "PAQUEBOT_NATS_PASSWORD" (include "paquebot.secretName" .) "nats-password") }}
{{- else }}
- name: PAQUEBOT_NATS_URL
  value: {{ join "," $v.nats.url | quote }}
- name: PAQUEBOT_NATS_STREAM
  value: {{ $v.nats.stream | quote }}
- name: PAQUEBOT_NATS_REPLICAS
  value: {{ $v.nats.replicas | quote }}
{{- with get $v.nats.credentials.services .service | default $v.nats.credentials.existingSecret }}
{{- if $keys.creds }}
- name: PAQUEBOT_NATS_CREDENTIALS
  value: /etc/paquebot/nats/nats.creds
{{- else }}
{{ include "paquebot.fromSecret" (list "PAQUEBOT_NATS_USER" . $keys.user) }}
{{ include "paquebot.fromSecret" (list "PAQUEBOT_NATS_PASSWORD" . $keys.password) }}
{{- end }}
{{- end }}
{{- if $v.nats.caSecret }}
- name: PAQUEBOT_NATS_CA
  value: /etc/paquebot/nats-ca/ca.crt
{{- end }}
{{- end }}
{{- end }}

{{- define "paquebot.s3Env" -}}
{{- $v := .root.Values }}
{{- if $v.bundled.enabled }}
- name: PAQUEBOT_S3_ENDPOINT
  value: http://{{ include "paquebot.fullname" .root }}-s3:2333
- name: PAQUEBOT_S3_BUCKET
  value: {{ $v.s3.bucket | quote }}
{{ include "paquebot.fromSecret" (list "PAQUEBOT_S3_ACCESS_KEY" (include "paquebot.secretName" .) "s3-access-key") }}
{{ include "paquebot.fromSecret" (list "PAQUEBOT_S3_SECRET_KEY" (include "paquebot.secretName" .) "s3-secret-key") }}
{{- else }}
{{- $secret := get $v.s3.credentials.services .service | default $v.s3.credentials.existingSecret }}
- name: PAQUEBOT_S3_ENDPOINT
  value: {{ $v.s3.endpoint | quote }}
- name: PAQUEBOT_S3_BUCKET
  value: {{ $v.s3.bucket | quote }}
- name: PAQUEBOT_S3_REGION
  value: {{ $v.s3.region | quote }}
- name: PAQUEBOT_S3_PATH_STYLE
  value: {{ $v.s3.pathStyle | quote }}
{{- if $v.s3.caSecret }}
- name: PAQUEBOT_S3_CA
  value: /etc/paquebot/s3-ca/ca.crt
{{- end }}
{{ include "paquebot.fromSecret" (list "PAQUEBOT_S3_ACCESS_KEY" $secret $v.s3.credentials.keys.accessKey) }}
{{ include "paquebot.fromSecret" (list "PAQUEBOT_S3_SECRET_KEY" $secret $v.s3.credentials.keys.secretKey) }}
{{- end }}
{{- end }}

{{- /* host:port/database?options of a DSN. The services add the password themselves, escaped. */}}
{{- define "paquebot.database" -}}
{{- $p := .Values.postgres }}
{{- if .Values.bundled.enabled -}}
{{ include "paquebot.fullname" . }}-postgres:2543/paquebot?sslmode=disable
{{- else -}}
{{- /* The driver does not use the system's certificates by default. */ -}}
{{- $ca := ternary "/etc/paquebot/postgres-ca/ca.crt" "/etc/ssl/certs/ca-certificates.crt" (ne $p.caSecret "") -}}
{{ $p.host }}:{{ $p.port }}/{{ $p.database }}?sslmode={{ $p.sslMode }}{{ if or $p.caSecret (hasPrefix "verify" $p.sslMode) }}&sslrootcert={{ $ca }}{{ end }}
{{- end }}
{{- end }}

{{- /* A service's own role. The migrations' grants fix its name, unless a Secret of the user names a member of it. */}}
{{- define "paquebot.roleEnv" -}}
{{- $given := "" }}
{{- $keys := .root.Values.postgres.roles.keys }}
{{- if not .root.Values.bundled.enabled }}{{ $given = get .root.Values.postgres.roles.services .service }}{{ end }}
{{- if $given }}
{{ include "paquebot.fromSecret" (list "DATABASE_ROLE" $given $keys.username) }}
- name: PAQUEBOT_POSTGRES_DSN
  value: postgresql://$(DATABASE_ROLE)@{{ include "paquebot.database" .root }}
{{ include "paquebot.fromSecret" (list "PAQUEBOT_POSTGRES_PASSWORD" $given $keys.password) }}
{{- else }}
- name: PAQUEBOT_POSTGRES_DSN
  value: postgresql://paquebot_{{ .service }}@{{ include "paquebot.database" .root }}
{{ include "paquebot.fromSecret" (list "PAQUEBOT_POSTGRES_PASSWORD" (include "paquebot.secretName" .) "postgres-password") }}
{{- end }}
{{- end }}

{{- /*
The owner of the database, and the passwords that migrations set for the services' roles, read from the services' own
Secrets, so that each has one place. The user creates a role whose Secret the values name.
*/}}
{{- define "paquebot.ownerEnv" -}}
{{- $root := .root }}
{{- $v := .root.Values }}
{{- $owner := $v.postgres.owner }}
{{- if $v.bundled.enabled }}
- name: PAQUEBOT_POSTGRES_DSN
  value: postgresql://postgres@{{ include "paquebot.database" .root }}
{{ include "paquebot.fromSecret" (list "PAQUEBOT_POSTGRES_PASSWORD" (include "paquebot.secretName" .) "postgres-password") }}
{{- else }}
{{ include "paquebot.fromSecret" (list "DATABASE_OWNER" $owner.existingSecret $owner.keys.username) }}
- name: PAQUEBOT_POSTGRES_DSN
  value: postgresql://$(DATABASE_OWNER)@{{ include "paquebot.database" .root }}
{{ include "paquebot.fromSecret" (list "PAQUEBOT_POSTGRES_PASSWORD" $owner.existingSecret $owner.keys.password) }}
{{- end }}
{{- range $service, $uses := include "paquebot.uses" $root | fromYaml }}
{{- if and (has "postgres" $uses) (or $v.bundled.enabled (not (get $v.postgres.roles.services $service))) }}
{{- $secret := include "paquebot.secretName" (dict "root" $root "service" $service) }}
{{ include "paquebot.fromSecret" (list (printf "PAQUEBOT_ROLE_PASSWORD_%s" (upper $service)) $secret "postgres-password") }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Volume items of the user's own engines' CA certificates and NATS credentials; empty with bundled ones. */}}
{{- define "paquebot.engineVolumes" -}}
{{- range $name, $source := include "paquebot.engineFiles" . | fromYaml }}
- name: {{ $name }}
  secret:
    secretName: {{ $source.secret | quote }}
    items:
      - {key: {{ $source.key | quote }}, path: {{ $source.path }}}
{{- end }}
{{- end }}

{{- define "paquebot.engineVolumeMounts" -}}
{{- range $name, $source := include "paquebot.engineFiles" . | fromYaml }}
- name: {{ $name }}
  mountPath: /etc/paquebot/{{ $name }}
  readOnly: true
{{- end }}
{{- end }}

{{- define "paquebot.engineFiles" -}}
{{- $v := .root.Values }}
{{- $uses := get (include "paquebot.uses" .root | fromYaml) .service | default list }}
{{- if not $v.bundled.enabled }}
{{- if has "nats" $uses }}
{{- with and $v.nats.credentials.keys.creds (get $v.nats.credentials.services .service | default $v.nats.credentials.existingSecret) }}
nats: {secret: {{ . | quote }}, key: {{ $v.nats.credentials.keys.creds | quote }}, path: nats.creds}
{{- end }}
{{- with $v.nats.caSecret }}
nats-ca: {secret: {{ . | quote }}, key: ca.crt, path: ca.crt}
{{- end }}
{{- end }}
{{- if has "s3" $uses }}
{{- with $v.s3.caSecret }}
s3-ca: {secret: {{ . | quote }}, key: ca.crt, path: ca.crt}
{{- end }}
{{- end }}
{{- if or (has "postgres" $uses) (has "owner" $uses) }}
{{- with $v.postgres.caSecret }}
postgres-ca: {secret: {{ . | quote }}, key: ca.crt, path: ca.crt}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The Secret with the certificate of the mail services: tls.crt, tls.key and, if its issuer adds it, ca.crt. */}}
{{- define "paquebot.tlsSecretName" -}}
{{- if .Values.tls.existingSecret -}}
{{ .Values.tls.existingSecret }}
{{- else if .Values.tls.certManager.enabled -}}
{{- /* Not the self-signed one's name: cert-manager would write into a Secret that Helm manages. */ -}}
{{ include "paquebot.fullname" . }}-certificate
{{- else -}}
{{ include "paquebot.fullname" . }}-tls
{{- end }}
{{- end }}
