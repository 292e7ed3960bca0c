{{/* Whether a pod's memory limit holds what its settings allow: otherwise the kernel kills the pod under load. */}}

{{- /* Bytes of a quantity of Kubernetes, such as 512Mi; thousandths are left out. */}}
{{- define "paquebot.quantity" -}}
{{- $text := include "paquebot.text" . }}
{{- $powers := dict "k" 1000 "K" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "P" 1000000000000000 "E" 1000000000000000000 }}
{{- $powers = merge $powers (dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 "Ei" 1152921504606846976) }}
{{- mulf (regexFind "^[0-9.]+" $text | float64) (get $powers (regexFind "[A-Za-z]+$" $text) | default 1) | int64 }}
{{- end }}

{{- /* Bytes of a setting, such as 128MiB. */}}
{{- define "paquebot.bytes" -}}
{{- $text := include "paquebot.text" . | lower }}
{{- $powers := dict "kb" 1000 "mb" 1000000 "gb" 1000000000 "kib" 1024 "mib" 1048576 "gib" 1073741824 }}
{{- mul (regexFind "^[0-9]+" $text | int64) (get $powers (regexFind "[a-z]+$" $text) | default 1) }}
{{- end }}

{{- /* The effective value of a setting: `settings` takes precedence over the chart's own value. (list VALUES NAME VALUE) */}}
{{- define "paquebot.inForce" -}}
{{- $values := index . 0 }}
{{- if hasKey $values.settings (index . 1) }}{{ include "paquebot.text" (get $values.settings (index . 1)) }}{{ else }}{{ include "paquebot.text" (index . 2) }}{{ end }}
{{- end }}

{{- /*
The memory in bytes that a pod of "service" may need, and the reasons: {"minimum": BYTES, "of": TEXT}. Details:
docs/hostile-input.md.
*/}}
{{- define "paquebot.memoryNeed" -}}
{{- $v := .values }}
{{- $mebi := 1048576 }}
{{- $own := mul 70 $mebi }}
{{- $inFlight := "" }}
{{- if ne .service "recipient_validation" }}{{ $inFlight = include "paquebot.inForce" (list $v "PAQUEBOT_IN_FLIGHT" $v.inFlight) }}{{ end }}
{{- $minimum := 0 }}
{{- $of := "" }}
{{- if eq .service "smtp_ingress" }}
  {{- $size := include "paquebot.inForce" (list $v "PAQUEBOT_SMTP_MAX_SIZE" $v.maxMessageSize) }}
  {{- $connections := include "paquebot.inForce" (list $v "PAQUEBOT_SMTP_CONNECTIONS" $v.connections) }}
  {{- $minimum = add $own (mul $connections 16384) (mul 2 (include "paquebot.bytes" $inFlight)) (mul 2 (include "paquebot.bytes" $size)) }}
  {{- $of = printf "inFlight %s, maxMessageSize %s and connections %s" $inFlight $size $connections }}
{{- else if eq .service "recipient_validation" }}
  {{- $threads := include "paquebot.inForce" (list $v "PAQUEBOT_HASH_THREADS" $v.hashThreads) }}
  {{- $minimum = add $own (mul $threads 19 $mebi) }}
  {{- $of = printf "hashThreads %s" $threads }}
{{- else if has .service (list "imap" "pop3") }}
  {{- $sessions := include "paquebot.inForce" (list $v (printf "PAQUEBOT_%s_SESSIONS" (upper .service)) $v.sessions) }}
  {{- $bytes := include "paquebot.bytes" $inFlight }}
  {{- $minimum = max (mul 2 $bytes) (add $own $bytes (mul $sessions 61440)) }}
  {{- $of = printf "inFlight %s and sessions %s" $inFlight $sessions }}
{{- else }}
  {{- $minimum = mul 2 (include "paquebot.bytes" $inFlight) }}
  {{- $of = printf "inFlight %s" $inFlight }}
{{- end }}
{{- $workers := include "paquebot.inForce" (list $v "PAQUEBOT_WORKERS" 1) | int64 }}
{{- if gt $workers 1 }}{{ $of = printf "%s in each of %d workers" $of $workers }}{{ end }}
{{- dict "minimum" (mul $minimum $workers | toString) "of" $of | toJson }}
{{- end }}

{{- define "paquebot.memoryFaults" -}}
{{- $faults := list }}
{{- $pods := include "paquebot.servicePods" . | fromYaml }}
{{- range $part, $service := $pods }}
  {{- $values := include "paquebot.valuesOf" (dict "root" $ "part" $part) | fromJson }}
  {{- $limit := dig "resources" "limits" "memory" "" $values }}
  {{- $request := dig "resources" "requests" "memory" "" $values }}
  {{- if $limit }}
    {{- $need := include "paquebot.memoryNeed" (dict "service" $service "values" $values) | fromJson }}
    {{- $bytes := include "paquebot.quantity" $limit | int64 }}
    {{- if lt $bytes (int64 $need.minimum) }}
      {{- $wanted := div (add (int64 $need.minimum) 1048575) 1048576 }}
      {{- $faults = append $faults (printf "%s.resources.limits.memory is %s, but %s need %dMi: raise the limit, or lower them" $part $limit $need.of $wanted) }}
    {{- else if and $request (lt $bytes (include "paquebot.quantity" $request | int64)) }}
      {{- $faults = append $faults (printf "%s.resources: limits.memory %s is less than requests.memory %s" $part $limit $request) }}
    {{- end }}
  {{- end }}
{{- end }}
{{- toJson $faults }}
{{- end }}

{{- /* Part of the values to the service that its pods run. */}}
{{- define "paquebot.servicePods" -}}
smtpIngress: smtp_ingress
{{- if .Values.smtpIngress.submission.separate }}
smtpIngress.submission: smtp_ingress
{{- end }}
recipientValidation: recipient_validation
delivery: delivery
relay: relay
imap: imap
pop3: pop3
{{- end }}

{{- /* The values of a part as JSON; submission has those of smtpIngress where it has none of its own. */}}
{{- define "paquebot.valuesOf" -}}
{{- if eq .part "smtpIngress.submission" }}
{{- $whole := .root.Values.smtpIngress }}
{{- mergeOverwrite (deepCopy $whole) (omit $whole.submission "separate") | toJson }}
{{- else }}
{{- get .root.Values .part | toJson }}
{{- end }}
{{- end }}
