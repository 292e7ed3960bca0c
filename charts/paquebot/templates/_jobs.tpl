{{/*
The pod of a job: "root" $, "component", "args" (a list), "resources", "restartPolicy", "env" (entries as YAML),
"service", whose engines it uses ("": none), and "caller", its name for the directory (absent: none).
*/}}
{{- define "paquebot.jobPod" -}}
{{- $needs := dict "root" .root "service" .service -}}
metadata:
  labels:
    {{- include "paquebot.labels" . | nindent 4 }}
    {{- with .root.Values.jobs.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .root.Values.jobs.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  restartPolicy: {{ .restartPolicy }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with include "paquebot.imagePullSecrets" .root | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  securityContext:
    {{- include "paquebot.podSecurityContext" .root | nindent 4 }}
  {{- with include "paquebot.scheduling" .root.Values.jobs | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ include "paquebot.image" .root }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      args:
        {{- toYaml .args | nindent 8 }}
      # `kubectl describe` then shows why it failed.
      terminationMessagePolicy: FallbackToLogsOnError
      securityContext:
        {{- include "paquebot.containerSecurityContext" .root | nindent 8 }}
      resources:
        {{- toYaml .resources | nindent 8 }}
      {{- if or .service .env }}
      env:
        {{- if .service }}
        {{- include "paquebot.engineEnv" $needs | trim | nindent 8 }}
        {{- end }}
        {{- with .env }}
        {{- . | nindent 8 }}
        {{- end }}
      {{- end }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        {{- with include "paquebot.engineVolumeMounts" $needs | trim }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- if .caller }}
        {{- include "paquebot.grpcVolumeMounts" . | trim | nindent 8 }}
        {{- end }}
        {{- with .mounts }}
        {{- . | nindent 8 }}
        {{- end }}
  volumes:
    - name: tmp
      emptyDir: {}
    {{- with include "paquebot.engineVolumes" $needs | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- if .caller }}
    {{- include "paquebot.grpcVolumes" . | trim | nindent 4 }}
    {{- end }}
    {{- with .volumes }}
    {{- . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* Where a job finds the directory, and its administrator's token. */}}
{{- define "paquebot.adminEnv" -}}
- {name: PAQUEBOT_RECIPIENT_VALIDATION, value: {{ include "paquebot.grpcTarget" . }}}
{{- include "paquebot.grpcTlsEnv" . }}
{{ include "paquebot.fromSecret" (list "PAQUEBOT_ADMIN_TOKEN" (include "paquebot.secretName" (dict "root" . "service" "recipient_validation")) "admin-token") }}
{{- end }}
