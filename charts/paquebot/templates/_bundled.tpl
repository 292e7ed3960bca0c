{{/*
A bundled engine: StatefulSet, Service and NetworkPolicy. Evaluation only: one pod, so replacing a node or a full disk
is an outage (services then refuse mail temporarily and lose nothing). The argument is a dict: "root" $, "engine" nats,
"ports" a list of (dict "name" "nats" "port" 2422): the first is for our services, the others for monitoring. The
engine's other listeners are on the pod's loopback or demand a certificate that never leaves the pod.
*/}}
{{- define "paquebot.bundledEngine" -}}
{{- $root := .root }}
{{- $engine := .engine }}
{{- $values := get $root.Values.bundled $engine }}
{{- $name := printf "%s-%s" (include "paquebot.fullname" $root) $engine }}
{{- $labels := dict "root" $root "component" $engine }}
{{- $pause := mul (get (dict "nats" 0 "s3" 1 "postgres" 2) $engine) $root.Values.bundled.pauseSeconds }}
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}
  labels:
    {{- include "paquebot.labels" $labels | nindent 4 }}
spec:
  type: ClusterIP
  selector:
    {{- include "paquebot.selectorLabels" $labels | nindent 4 }}
  ports:
    {{- range .ports }}
    # The protocol, for a service mesh: NATS speaks first, so the mesh cannot detect it from the client's bytes.
    - {name: {{ .name }}, port: {{ .port }}, targetPort: {{ .name }}, appProtocol: tcp}
    {{- end }}
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ $name }}
  labels:
    {{- include "paquebot.labels" $labels | nindent 4 }}
  annotations:
    paquebot/engines: {{ include "paquebot.enginesCode" $root | quote }}
spec:
  serviceName: {{ $name }}
  replicas: 1
  # OrderedReady would wait for a pod that never becomes ready before it uses the version that repairs it.
  podManagementPolicy: Parallel
  # Neither `helm uninstall` nor scaling to zero deletes mail.
  persistentVolumeClaimRetentionPolicy: {whenDeleted: Retain, whenScaled: Retain}
  selector:
    matchLabels:
      {{- include "paquebot.selectorLabels" $labels | nindent 6 }}
  template:
    metadata:
      # No version here: an upgrade that does not change the engine leaves it running.
      labels:
        {{- include "paquebot.selectorLabels" $labels | nindent 8 }}
      annotations:
        # The engine reads its logins when it starts.
        checksum/access: {{ include "paquebot.accessChecksum" (dict "root" $root "engine" $engine) | quote }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      {{- with include "paquebot.imagePullSecrets" $root | trim }}
      {{- . | nindent 6 }}
      {{- end }}
      securityContext:
        {{- include "paquebot.podSecurityContext" $root | nindent 8 }}
      # The pause below, the drain of 40 s, of which PostgreSQL's last checkpoint may take 30, and the process's exit.
      terminationGracePeriodSeconds: {{ add 50 $pause }}
      {{- with include "paquebot.scheduling" $values | trim }}
      {{- . | nindent 6 }}
      {{- end }}
      containers:
        - name: {{ $engine }}
          image: {{ include "paquebot.enginesImage" (dict "root" $root "engine" $engine) | quote }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          args: [engine, {{ $engine }}]
          {{- if $pause }}
          # When all three are replaced at once, this one serves until the ones before it are back.
          lifecycle:
            preStop:
              exec:
                command: [sleep, {{ $pause | quote }}]
          {{- end }}
          securityContext:
            {{- include "paquebot.containerSecurityContext" $root | nindent 12 }}
          resources:
            {{- toYaml $values.resources | nindent 12 }}
          env:
            - {name: PAQUEBOT_ENGINE_DATA, value: /data}
            - {name: PAQUEBOT_ENGINE_ACCESS, value: /etc/paquebot/access}
            - {name: PAQUEBOT_ENGINE_HOST, value: {{ include "paquebot.engineHost" $root | quote }}}
            - {name: PAQUEBOT_METRICS_LISTEN, value: {{ include "paquebot.listen" (list $root 2900) | quote }}}
            - {name: PAQUEBOT_LOG_LEVEL, value: {{ $root.Values.log.level }}}
            - {name: PAQUEBOT_DRAIN, value: 40s}
            {{- if and (eq $engine "nats") (include "paquebot.natsMonitored" $root) }}
            - {name: PAQUEBOT_ENGINE_MONITOR_HOST, value: {{ include "paquebot.engineHost" $root | quote }}}
            {{- end }}
            {{- if eq $engine "s3" }}
            - {name: PAQUEBOT_S3_BUCKET, value: {{ $root.Values.s3.bucket | quote }}}
            {{- end }}
          ports:
            {{- range .ports }}
            - {name: {{ .name }}, containerPort: {{ .port }}}
            {{- end }}
            - {name: metrics, containerPort: 2900}
          # Recovery after a crash may take minutes; /livez answers meanwhile.
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
          # The probe tries the engine's real work once.
          readinessProbe:
            httpGet: {path: /readyz, port: metrics}
            periodSeconds: 5
            timeoutSeconds: 5
            failureThreshold: 3
          volumeMounts:
            - {name: data, mountPath: /data}
            - {name: tmp, mountPath: /tmp}
            - {name: access, mountPath: /etc/paquebot/access, readOnly: true}
      volumes:
        - name: tmp
          emptyDir: {}
        - name: access
          secret:
            secretName: {{ include "paquebot.secretName" (dict "root" $root "service" "engines") | quote }}
            defaultMode: 0440
            # It has no access to the other engines' logins.
            items:
              {{- range $service, $uses := include "paquebot.uses" $root | fromYaml }}
              {{- if and (has $engine $uses) (ne $engine "postgres") }}
              - {key: {{ $engine }}.{{ $service }}, path: {{ $engine }}.{{ $service }}}
              {{- end }}
              {{- end }}
              {{- if eq $engine "postgres" }}
              - {key: postgres.owner, path: postgres.owner}
              {{- end }}
  volumeClaimTemplates:
    - metadata:
        name: data
        labels:
          {{- include "paquebot.selectorLabels" $labels | nindent 10 }}
      spec:
        accessModes: [ReadWriteOnce]
        {{- with $values.storageClass }}
        storageClassName: {{ . | quote }}
        {{- end }}
        resources:
          requests:
            storage: {{ include "paquebot.text" $values.storage | quote }}
{{- if $root.Values.networkPolicy.enabled }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ $name }}
  labels:
    {{- include "paquebot.labels" $labels | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "paquebot.selectorLabels" $labels | nindent 6 }}
  policyTypes: [Ingress, Egress]
  # An engine opens no connections.
  egress: []
  ingress:
    {{- include "paquebot.metricsIngress" . | nindent 4 }}
    {{- range rest .ports }}
    # Also KEDA, which reads here how many jobs wait.
    - ports:
        - {port: {{ .name }}, protocol: TCP}
    {{- end }}
    - ports:
        - {port: {{ (first .ports).name }}, protocol: TCP}
      from:
        - podSelector:
            matchLabels:
              app.kubernetes.io/name: paquebot
              app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
            matchExpressions:
              - key: app.kubernetes.io/component
                operator: In
                values:
                  {{- range $service, $uses := include "paquebot.uses" $root | fromYaml }}
                  {{- if or (has $engine $uses) (and (eq $engine "postgres") (has "owner" $uses)) }}
                  - {{ replace "_" "-" $service }}
                  {{- end }}
                  {{- if and (eq $service "smtp_ingress") (has $engine $uses) }}
                  - submission
                  {{- end }}
                  {{- end }}
                  - verify
{{- end }}
{{- end }}

{{/* nodeSelector, tolerations and affinity of a pod. */}}
{{- define "paquebot.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
