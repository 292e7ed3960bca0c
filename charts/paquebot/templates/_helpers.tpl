{{/* Names, labels, images and security contexts, for every template of the chart. */}}

{{/* Prefix of every object's name. 40 characters leave room for the longest suffix and a pod's own. */}}
{{- define "paquebot.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels by which a workload knows its pods: never changed after the installation. (dict "root" $ "component" "imap") */}}
{{- define "paquebot.selectorLabels" -}}
app.kubernetes.io/name: paquebot
app.kubernetes.io/instance: {{ .root.Release.Name }}
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

{{/* The application's version, as a label may have it: a tag may be longer, or a digest. */}}
{{- define "paquebot.version" -}}
{{- regexReplaceAll "[^A-Za-z0-9._-]" (.Values.image.tag | default .Chart.AppVersion) "_" | trunc 63 | trimAll "-._" -}}
{{- end -}}

{{- define "paquebot.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "paquebot.enginesImage" -}}
{{ .Values.enginesImage.repository | default (printf "%s-engines" .Values.image.repository) }}:{{ .Values.enginesImage.tag | default .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* imagePullSecrets of a pod, or nothing. */}}
{{- define "paquebot.imagePullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
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
