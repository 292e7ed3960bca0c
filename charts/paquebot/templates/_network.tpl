{{/* Parts of the NetworkPolicies. They take the dictionary of _pod.tpl. */}}

{{/* Ingress rule for metrics and probes. Kubelets connect from their nodes, which policies do not restrict. */}}
{{- define "paquebot.metricsIngress" -}}
- ports:
    - {port: metrics, protocol: TCP}
  {{- with .root.Values.networkPolicy.metricsFrom }}
  from:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* Egress rules for DNS, for the engines ("engines": a list of nats, s3, postgres), and for the directory. */}}
{{- define "paquebot.egress" -}}
{{- $values := .root.Values.networkPolicy -}}
{{- with $values.dnsPorts }}
- ports:
    {{- range . }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}
{{- if .root.Values.bundled.enabled }}
{{- $ports := dict "nats" 2422 "s3" 2333 "postgres" 2543 }}
{{- range .engines }}
- ports:
    - {port: {{ get $ports . }}, protocol: TCP}
  to:
    - podSelector:
        matchLabels:
          {{- include "paquebot.selectorLabels" (dict "root" $.root "component" .) | nindent 10 }}
{{- end }}
{{- else if $values.enginesTo }}
- to:
    {{- toYaml $values.enginesTo | nindent 4 }}
{{- else }}
# The engines are elsewhere, at ports and addresses that the chart cannot know.
- {}
{{- end }}
{{- if ne .service "recipient_validation" }}
- ports:
    {{- range $port, $_ := include "paquebot.grpcPorts" .root | fromYaml }}
    - {port: {{ $port }}, protocol: TCP}
    {{- end }}
  to:
    - podSelector:
        matchLabels:
          {{- include "paquebot.selectorLabels" (dict "root" .root "component" "recipient-validation") | nindent 10 }}
{{- end }}
{{- with .root.Values.tracing.endpoint }}
- ports:
    - {port: {{ regexFind ":[0-9]+/?$" . | trimAll ":/" | default 4317 }}, protocol: TCP}
{{- end }}
{{- with $values.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Egress rule for "ports" everywhere except in the networks "closed", IPv4 and IPv6. */}}
{{- define "paquebot.outside" -}}
{{- /* A rule without ports would allow all ports. */}}
{{- if .ports }}
- ports:
    {{- range .ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- if .closed }}
  to:
    {{- range $all := list "0.0.0.0/0" "::/0" }}
    {{- $block := dict "cidr" $all }}
    {{- range $.closed }}
    {{- if eq (contains ":" .) (contains ":" $all) }}
    {{- $_ := set $block "except" (append ($block.except | default list) .) }}
    {{- end }}
    {{- end }}
    - ipBlock: {{ toJson $block }}
    {{- end }}
  {{- end }}
{{- end }}
{{- end -}}
