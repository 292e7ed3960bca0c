{{/* Names, labels, images and security contexts, for every template of the chart. */}}

{{/*
Prefix of every object's name. 40 characters leave room for the longest suffix and a pod's own. A longer name is cut
and gets a hash of the whole as its end, so that two releases share no object. A release that was installed when names
were only cut keeps its name.
*/}}
{{- define "paquebot.fullname" -}}
{{- if not (hasKey .Values "fullname") }}
{{- $name := .Values.fullnameOverride | default .Release.Name }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) }}
{{- fail (printf "the release's name %q cannot begin the name of a Service, which must be a letter, then letters, digits and hyphens: choose another name, or set fullnameOverride" $name) }}
{{- end }}
{{- if gt (len $name) 40 }}
{{- $cut := $name | trunc 40 | trimSuffix "-" }}
{{- $old := lookup "v1" "Secret" .Release.Namespace (printf "%s-recipient-validation" $cut) | default (lookup "apps/v1" "Deployment" .Release.Namespace (printf "%s-smtp-ingress" $cut)) }}
{{- $name = ternary $cut (printf "%s-%s" ($name | trunc 31 | trimAll "-") ($name | sha256sum | trunc 8)) (eq (include "paquebot.isOurs" (dict "root" . "object" ($old | default dict))) "true") }}
{{- end }}
{{- $_ := set .Values "fullname" $name }}
{{- end }}
{{- .Values.fullname -}}
{{- end -}}

{{/* Labels by which a workload selects its pods: never changed after the installation. (dict "root" $ "component" "imap") */}}
{{- define "paquebot.selectorLabels" -}}
app.kubernetes.io/name: paquebot
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of an object. (dict "root" $ "component" "imap") */}}
{{- define "paquebot.labels" -}}
{{ include "paquebot.selectorLabels" . }}
app.kubernetes.io/part-of: paquebot
app.kubernetes.io/version: {{ include "paquebot.version" .root | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The application's version as a valid label: a tag may be longer, or a digest. */}}
{{- define "paquebot.version" -}}
{{- regexReplaceAll "[^A-Za-z0-9._-]" (.Values.image.tag | default .Chart.AppVersion) "_" | trunc 63 | trimAll "-._" -}}
{{- end -}}

{{- define "paquebot.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/*
The image of a bundled engine. (dict "root" $ "engine" "nats") Without its own tag it gets that of `image` at the
installation, and keeps it as long as the engines' own code does not change: an upgrade of the services does not
interrupt mail by replacing engines. `paquebot/engines` on the StatefulSet has the code it was installed for.
*/}}
{{- define "paquebot.enginesImage" -}}
{{- $v := .root.Values -}}
{{- $repository := $v.enginesImage.repository | default (printf "%s-engines" $v.image.repository) -}}
{{- $image := printf "%s:%s" $repository ($v.enginesImage.tag | default $v.image.tag | default .root.Chart.AppVersion) -}}
{{- if not $v.enginesImage.tag -}}
{{- $found := lookup "apps/v1" "StatefulSet" .root.Release.Namespace (printf "%s-%s" (include "paquebot.fullname" .root) .engine) -}}
{{- $code := dig "metadata" "annotations" "paquebot/engines" "" $found -}}
{{- range (dig "spec" "template" "spec" "containers" list $found) -}}
{{- if and (eq .name $.engine) (eq $code (include "paquebot.enginesCode" $.root)) (hasPrefix (printf "%s:" $repository) .image) -}}
{{- $image = .image -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $image -}}
{{- end -}}

{{/* A hash of the code of the bundled engines and of their versions, which `make chart-docs` writes. */}}
{{- define "paquebot.enginesCode" -}}
{{- .Files.Get "generated/engines.txt" | trim -}}
{{- end -}}

{{/* imagePullSecrets of a pod, or nothing. */}}
{{- define "paquebot.imagePullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* The restricted Pod Security Standard; 10001 is the image's user. */}}
{{- define "paquebot.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "paquebot.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}
