{{/* Objects besides a Deployment that are the same for every service. They take the dictionary of _pod.tpl. */}}

{{- define "paquebot.horizontalPodAutoscaler" -}}
{{- if .values.autoscaling.enabled }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ .name }}
  labels:
    {{- include "paquebot.labels" . | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ .name }}}
  minReplicas: {{ include "paquebot.text" .values.autoscaling.minReplicas }}
  maxReplicas: {{ include "paquebot.text" .values.autoscaling.maxReplicas }}
  metrics:
    {{- with .values.autoscaling.targetCPUUtilizationPercentage }}
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ include "paquebot.text" . }}}
    {{- end }}
    {{- with .values.autoscaling.metrics }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .values.autoscaling.behavior }}
  behavior:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* It limits unavailable pods and does not require available ones, so that the only pod of a service can be moved. */}}
{{- define "paquebot.podDisruptionBudget" -}}
{{- if .values.podDisruptionBudget.enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .name }}
  labels:
    {{- include "paquebot.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ include "paquebot.text" .values.podDisruptionBudget.maxUnavailable }}
  # A pod that is not ready serves no clients, so it may be evicted.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "paquebot.selectorLabels" . | nindent 6 }}
{{- end }}
{{- end -}}

{{- define "paquebot.podMonitor" -}}
{{- with .root.Values.monitoring.podMonitor }}
{{- if and .enabled ($.root.Capabilities.APIVersions.Has "monitoring.coreos.com/v1/PodMonitor") }}
---
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: {{ $.name }}
  labels:
    {{- include "paquebot.labels" $ | nindent 4 }}
    {{- with .labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  selector:
    matchLabels:
      {{- include "paquebot.selectorLabels" $ | nindent 6 }}
  podTargetLabels: [app.kubernetes.io/component, app.kubernetes.io/instance, app.kubernetes.io/version]
  podMetricsEndpoints:
    - port: metrics
      path: /metrics
      interval: {{ .interval }}
{{- end }}
{{- end }}
{{- end -}}

{{/* KEDA on the jobs that wait in JetStream for the durable consumer "consumer". */}}
{{- define "paquebot.scaledByJobs" -}}
{{- $values := .values.keda }}
{{- if $values.enabled }}
{{- $keda := .root.Values.keda }}
{{- $bundled := "" }}
{{- if .root.Values.bundled.enabled }}
{{- $bundled = printf "%s-nats.%s.svc:2822" (include "paquebot.fullname" .root) .root.Release.Namespace }}
{{- end }}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: {{ .name }}
  labels:
    {{- include "paquebot.labels" . | nindent 4 }}
    {{- with $keda.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  scaleTargetRef: {name: {{ .name }}}
  {{- include "paquebot.scaledBounds" . | nindent 2 }}
  triggers:
    - type: nats-jetstream
      metadata:
        natsServerMonitoringEndpoint: {{ required "keda.nats.monitoringEndpoint: KEDA needs host:port of the monitoring port of NATS" ($keda.nats.monitoringEndpoint | default $bundled) | quote }}
        account: {{ $keda.nats.account | quote }}
        stream: {{ ternary "MAIL" .root.Values.nats.stream .root.Values.bundled.enabled | quote }}
        consumer: {{ .consumer }}
        lagThreshold: {{ include "paquebot.text" $values.pendingJobs | quote }}
        useHttps: {{ $keda.nats.useHttps | quote }}
{{- end }}
{{- end -}}

{{/* KEDA on the sum of "metric" over the pods: open sessions, from Prometheus. */}}
{{- define "paquebot.scaledBySessions" -}}
{{- $values := .values.keda }}
{{- if $values.enabled }}
{{- $keda := .root.Values.keda }}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: {{ .name }}
  labels:
    {{- include "paquebot.labels" . | nindent 4 }}
    {{- with $keda.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  scaleTargetRef: {name: {{ .name }}}
  {{- include "paquebot.scaledBounds" . | nindent 2 }}
  triggers:
    - type: prometheus
      metadata:
        serverAddress: {{ required (printf "keda.prometheus.serverAddress: KEDA needs a Prometheus to count the sessions of %s" .component) $keda.prometheus.serverAddress | quote }}
        query: {{ printf "sum(%s{namespace=%q,pod=~%q})" .metric .root.Release.Namespace (printf "%s-[^-]+-[^-]+" .name) | quote }}
        threshold: {{ include "paquebot.text" $values.sessions | quote }}
{{- end }}
{{- end -}}

{{- define "paquebot.scaledBounds" -}}
minReplicaCount: {{ include "paquebot.text" .values.keda.minReplicas }}
maxReplicaCount: {{ include "paquebot.text" .values.keda.maxReplicas }}
pollingInterval: {{ include "paquebot.text" .root.Values.keda.pollingInterval }}
cooldownPeriod: {{ include "paquebot.text" .root.Values.keda.cooldownPeriod }}
{{- with .values.keda.behavior }}
advanced:
  horizontalPodAutoscalerConfig:
    behavior:
      {{- toYaml . | nindent 6 }}
{{- end }}
{{- if .values.keda.minReplicas }}
# Without figures KEDA keeps the number of pods.
fallback: {failureThreshold: 5, replicas: {{ include "paquebot.text" .values.keda.minReplicas }}, behavior: currentReplicasIfHigher}
{{- end }}
{{- end -}}
