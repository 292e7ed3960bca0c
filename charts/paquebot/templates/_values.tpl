{{/*
Every template starts with `paquebot.prepare`, which completes and checks `.Values` once.
*/}}

{{- /*
Completes the values and refuses invalid ones, all faults at once, before anything is created.

`helm upgrade --reuse-values` passes the last release's values, without those that are new in this chart.
*/}}
{{- define "paquebot.prepare" -}}
{{- if not (hasKey .Values "prepared") }}
{{- $_ := include "paquebot.complete" (dict "values" .Values "defaults" (.Files.Get "generated/defaults.json" | fromJson) "new" false) }}
{{- $_ := set .Values "prepared" true }}
{{- $_ := include "paquebot.fullname" . }}
{{- $faults := concat (include "paquebot.settingFaults" . | fromJsonArray) (include "paquebot.memoryFaults" . | fromJsonArray) }}
{{- $faults = concat $faults (include "paquebot.listenFaults" . | fromJsonArray) (include "paquebot.volumeFaults" . | fromJsonArray) }}
{{- if $faults }}{{ fail (join "; " $faults) }}{{ end }}
{{- end }}
{{- end }}

{{- /*
Adds missing "defaults" to "values"; a default is a list of one value. A list or map that is missing in an existing group
was removed with null and stays removed; "new": the whole group is missing.
*/}}
{{- define "paquebot.complete" -}}
{{- $values := .values }}
{{- $new := .new }}
{{- range $key, $default := .defaults }}
{{- $given := get $values $key }}
{{- $missing := kindIs "invalid" $given | or (not (hasKey $values $key)) }}
{{- if kindIs "slice" $default }}
  {{- $value := first $default }}
  {{- $several := and $value (or (kindIs "map" $value) (kindIs "slice" $value)) }}
  {{- if and $missing (or $new (not $several)) }}{{ $_ := set $values $key $value }}{{ end }}
{{- else }}
  {{- if $missing }}{{ $_ := set $values $key dict }}{{ end }}
  {{- $_ := include "paquebot.complete" (dict "values" (get $values $key) "defaults" $default "new" (or $new $missing)) }}
{{- end }}
{{- end }}
{{- end }}

{{- /*
A StatefulSet's volumes cannot be changed: an upgrade that tries to fails halfway. `lookup` finds nothing in
`helm template`; then the chart compares nothing.
*/}}
{{- define "paquebot.volumeFaults" -}}
{{- $root := . }}
{{- $faults := list }}
{{- range $engine := ternary (list "nats" "s3" "postgres") list .Values.bundled.enabled }}
  {{- $wanted := get $root.Values.bundled $engine }}
  {{- $found := lookup "apps/v1" "StatefulSet" $root.Release.Namespace (printf "%s-%s" (include "paquebot.fullname" $root) $engine) }}
  {{- range (dig "spec" "volumeClaimTemplates" list $found) }}
    {{- $size := dig "spec" "resources" "requests" "storage" "0" . }}
    {{- if ne (include "paquebot.quantity" $size) (include "paquebot.quantity" $wanted.storage) }}
      {{- $faults = append $faults (printf "bundled.%s.storage is %v, but the volume was created with %s and cannot be changed here: set %s" $engine $wanted.storage $size $size) }}
    {{- end }}
    {{- $class := dig "spec" "storageClassName" "" . }}
    {{- if ne $class ($wanted.storageClass | default $class) }}
      {{- $faults = append $faults (printf "bundled.%s.storageClass is %s, but the volume was created with %q and cannot be changed here" $engine $wanted.storageClass $class) }}
    {{- end }}
  {{- end }}
{{- end }}
{{- toJson $faults }}
{{- end }}
