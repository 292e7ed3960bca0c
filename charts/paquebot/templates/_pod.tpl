{{/*
What the Deployments of all services have in common. Each template takes the same dictionary, which a service's file
defines at its top: "root" $, "component" (name in labels), "service" (name in the code), "values" (the service's part
of the values).
*/}}

{{/* The upper part of a Deployment's spec. With autoscaling it has no number of pods, which each upgrade would reset. */}}
{{- define "paquebot.rollout" -}}
{{- $keda := (.values.keda | default dict).enabled }}
{{- if and .values.autoscaling.enabled $keda }}
{{- fail (printf "%s: enable autoscaling or keda, not both: both would scale the same Deployment" .component) }}
{{- end }}
{{- if not (or .values.autoscaling.enabled $keda) }}
replicas: {{ include "paquebot.text" .values.replicas }}
{{- end }}
minReadySeconds: {{ include "paquebot.text" .root.Values.rollout.minReadySeconds }}
revisionHistoryLimit: {{ include "paquebot.text" .root.Values.rollout.revisionHistoryLimit }}
strategy:
  type: RollingUpdate
  rollingUpdate:
    maxSurge: {{ include "paquebot.text" .root.Values.rollout.maxSurge }}
    maxUnavailable: {{ include "paquebot.text" .root.Values.rollout.maxUnavailable }}
selector:
  matchLabels:
    {{- include "paquebot.selectorLabels" . | nindent 4 }}
{{- end -}}

{{- define "paquebot.podMetadata" -}}
labels:
  {{- include "paquebot.selectorLabels" . | nindent 2 }}
  # Not the chart's version: a chart that does not change this service must not replace its pods.
  app.kubernetes.io/version: {{ include "paquebot.version" .root | quote }}
  {{- with .values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  # Credentials are read once, at the start: new ones need new pods. Certificates do not.
  checksum/credentials: {{ get (include "paquebot.credentials" .root | fromJson).secrets .service | toJson | sha256sum | quote }}
  {{- with .values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* A pod's spec without its containers and volumes. */}}
{{- define "paquebot.podSpec" -}}
automountServiceAccountToken: false
# Service links would set variables that begin with the release's name, such as PAQUEBOT_, which are our settings.
enableServiceLinks: false
{{- include "paquebot.imagePullSecrets" .root }}
securityContext:
  {{- include "paquebot.podSecurityContext" .root | nindent 2 }}
# preStop, the drain, and the exit of the process after a drain that was cut off.
terminationGracePeriodSeconds: {{ add .values.preStopSeconds .values.drainSeconds 5 }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  - {{ toYaml . | indent 4 | trim }}
    {{- if not (hasKey . "labelSelector") }}
    labelSelector:
      matchLabels:
        {{- include "paquebot.selectorLabels" $ | nindent 8 }}
    {{- end }}
  {{- end }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Image, command and security of the service's container. */}}
{{- define "paquebot.container" -}}
name: {{ .service | replace "_" "-" }}
image: {{ include "paquebot.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: [{{ .service | replace "_" "-" }}]
securityContext:
  {{- include "paquebot.containerSecurityContext" .root | nindent 2 }}
resources:
  {{- toYaml .values.resources | nindent 2 }}
lifecycle:
  preStop:
    exec:
      command: [sleep, {{ .values.preStopSeconds | quote }}]
{{- end -}}

{{/*
Probes of the metrics port, which has no limits of connections. A start may be slow, a stuck event loop is restarted after
a minute, and a pod whose engines are away is not ready, but never restarted for that. `paquebot.readiness` is separate
because one service has another.
*/}}
{{- define "paquebot.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: metrics}
  periodSeconds: 1
  timeoutSeconds: 5
  failureThreshold: 120
livenessProbe:
  httpGet: {path: /livez, port: metrics}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end -}}

{{- define "paquebot.readiness" -}}
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  periodSeconds: 3
  timeoutSeconds: 5
  failureThreshold: 2
{{- end -}}

{{/*
Environment of the service: common variables, the engines', "own" (a list of entries as YAML), then `settings` and
`extraEnv` of the values, which replace earlier entries: a name may occur only once.
*/}}
{{- define "paquebot.env" -}}
{{- if hasKey .values.settings "PAQUEBOT_DRAIN" }}
{{- fail (printf "%s: set drainSeconds, not PAQUEBOT_DRAIN, so that the pod's grace period follows" .component) }}
{{- end }}
{{- $entries := include "paquebot.commonEnv" . | fromYamlArray }}
{{- $entries = concat $entries (include "paquebot.engineEnv" (dict "root" .root "service" .service) | fromYamlArray) }}
{{- $entries = concat $entries (.own | fromYamlArray) }}
{{- $entries = concat $entries (include "paquebot.settingEnv" .values.settings | fromYamlArray) }}
{{- $entries = concat $entries .values.extraEnv }}
{{- $last := dict }}
{{- range $index, $entry := $entries }}
{{- $_ := set $last $entry.name $index }}
{{- end }}
env:
{{- range $index, $entry := $entries }}
{{- if eq $index (get $last $entry.name) }}
  - {{ toYaml $entry | indent 4 | trim }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The entries of `settings`; null leaves a setting to the service. */}}
{{- define "paquebot.settingEnv" -}}
{{- range $name, $value := . }}
{{- if not (kindIs "invalid" $value) }}
- {name: {{ $name }}, value: {{ include "paquebot.text" $value | quote }}}
{{- end }}
{{- end }}
{{- end -}}

{{/* A value as text: a large integer arrives as a float, and must not become 1e+06. */}}
{{- define "paquebot.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}{{ int64 . }}{{- else -}}{{ . }}{{- end -}}
{{- end -}}

{{- define "paquebot.commonEnv" -}}
- {name: PAQUEBOT_METRICS_LISTEN, value: {{ include "paquebot.listen" (list .root 2900) | quote }}}
- {name: PAQUEBOT_HOSTNAME, value: {{ .root.Values.hostname | quote }}}
- {name: PAQUEBOT_DRAIN, value: {{ printf "%ds" (int .values.drainSeconds) | quote }}}
- {name: PAQUEBOT_LOG_LEVEL, value: {{ .root.Values.log.level }}}
- {name: PAQUEBOT_LOG_ADDRESSES, value: {{ .root.Values.log.addresses | quote }}}
{{- with .values.inFlight }}
- {name: PAQUEBOT_IN_FLIGHT, value: {{ include "paquebot.text" . | quote }}}
{{- end }}
{{- if ne .service "recipient_validation" }}
- {name: PAQUEBOT_RECIPIENT_VALIDATION, value: {{ include "paquebot.grpcTarget" .root }}}
{{- end }}
{{- include "paquebot.grpcTlsEnv" .root }}
{{- with .root.Values.tracing.endpoint }}
- {name: PAQUEBOT_TRACE_ENDPOINT, value: {{ . | quote }}}
- {name: PAQUEBOT_TRACE_SAMPLE, value: {{ $.root.Values.tracing.sample | quote }}}
{{- end }}
{{- end -}}

{{/* For services that mail clients and hosts connect to: their certificate, and the networks of trusted proxies. */}}
{{- define "paquebot.clientEnv" -}}
- {name: PAQUEBOT_TLS_CERTIFICATE, value: /etc/paquebot/tls/tls.crt}
- {name: PAQUEBOT_TLS_KEY, value: /etc/paquebot/tls/tls.key}
{{- with .root.Values.trustedProxies }}
- {name: PAQUEBOT_TRUSTED_PROXIES, value: {{ join "," . | quote }}}
{{- end }}
{{- end -}}

{{- define "paquebot.volumeMounts" -}}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  {{- if .tls }}
  # The directory, not the files, so that a renewed certificate is read without a restart.
  - {name: tls, mountPath: /etc/paquebot/tls, readOnly: true}
  {{- end }}
  {{- with include "paquebot.grpcVolumeMounts" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with include "paquebot.engineVolumeMounts" (dict "root" .root "service" .service) | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with .values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "paquebot.volumes" -}}
volumes:
  - name: tmp
    emptyDir: {}
  {{- if .tls }}
  - name: tls
    secret:
      secretName: {{ include "paquebot.tlsSecretName" .root | quote }}
      defaultMode: 0440
  {{- end }}
  {{- with include "paquebot.grpcVolumes" (dict "root" .root "caller" .service) | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with include "paquebot.engineVolumes" (dict "root" .root "service" .service) | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with .values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/*
The type of a mail service's Service. A demo has accounts for a trial, so the chart does not expose it by accident.
*/}}
{{- define "paquebot.serviceType" -}}
{{- $demo := .root.Values.demo -}}
{{- $type := .values.service.type | default (ternary "ClusterIP" "LoadBalancer" $demo.enabled) -}}
{{- if and $demo.enabled (not $demo.public) (ne $type "ClusterIP") }}
{{- fail (printf "%s: a Service of type %s would expose the demo accounts: leave the type out (ClusterIP, reached with kubectl port-forward), turn demo.enabled off, or set demo.public=true" .component $type) }}
{{- end -}}
{{ $type }}
{{- end -}}

{{/* The spec of a mail service's Service, without its ports. */}}
{{- define "paquebot.mailService" -}}
{{- $service := .values.service -}}
{{- $type := include "paquebot.serviceType" . -}}
type: {{ $type }}
{{- if ne $type "ClusterIP" }}
# Local: a node passes connections only to its own pods, so the pod sees the client's address.
externalTrafficPolicy: {{ $service.externalTrafficPolicy }}
{{- end }}
{{- if eq $type "LoadBalancer" }}
{{- with $service.loadBalancerClass }}
loadBalancerClass: {{ . | quote }}
{{- end }}
{{- with $service.loadBalancerIP }}
loadBalancerIP: {{ . | quote }}
{{- end }}
{{- with $service.loadBalancerSourceRanges }}
loadBalancerSourceRanges:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with $service.ipFamilyPolicy }}
ipFamilyPolicy: {{ . }}
{{- end }}
{{- with $service.ipFamilies }}
ipFamilies: {{ toJson . }}
{{- end }}
selector:
  {{- include "paquebot.selectorLabels" . | nindent 2 }}
{{- end -}}

{{/* A low port of a Service, mapped to the pods' high port of that name. (list $own "imaps" 993) */}}
{{- define "paquebot.mailPort" -}}
{{- $own := index . 0 -}}
{{- $name := index . 1 -}}
name: {{ $name }}
port: {{ index . 2 }}
targetPort: {{ $name }}
protocol: TCP
# The server speaks first: a service mesh that waits for the client's bytes to detect the protocol would wait forever.
appProtocol: tcp
{{- if ne (include "paquebot.serviceType" $own) "ClusterIP" }}
{{- with get $own.values.service.nodePorts $name }}
nodePort: {{ . }}
{{- end }}
{{- end }}
{{- end -}}
