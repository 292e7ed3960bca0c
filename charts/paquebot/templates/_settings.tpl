{{/*
The maps `settings`, checked against the services' own list: generated/settings.json, {SERVICE: {NAME: KIND}}, which
`make chart-docs` writes from the services' code.
*/}}

{{- define "paquebot.settingFaults" -}}
{{- $known := .Files.Get "generated/settings.json" | fromJson }}
{{- $faults := list }}
{{- $parts := include "paquebot.servicePods" . | fromYaml }}
{{- range $part, $service := merge (dict "janitor" "janitor") (omit $parts "smtpIngress.submission") }}
  {{- range $name, $value := (get $.Values $part).settings }}
    {{- $kind := get (get $known $service) $name | default (ternary "path" "" (hasKey (get $known $service) (trimSuffix "_FILE" $name))) }}
    {{- if kindIs "invalid" $value }}
    {{- else if not $kind }}
      {{- $faults = append $faults (printf "%s.settings: %s has no setting %s%s" $part (replace "_" "-" $service) $name (include "paquebot.settingHint" (dict "known" $known "service" $service "name" $name))) }}
    {{- else }}
      {{- $rule := get (include "paquebot.settingKinds" $ | fromYaml) $kind }}
      {{- $text := include "paquebot.text" $value }}
      {{- if and $rule (not (regexMatch $rule.pattern $text)) }}
        {{- $faults = append $faults (printf "%s.settings: %s is %q, which is not %s" $part $name $text $rule.what) }}
      {{- end }}
    {{- end }}
  {{- end }}
{{- end }}
{{- toJson $faults }}
{{- end }}

{{- /* The syntax of each kind of setting (services/paquebot/runtime/settings.py). "": may be empty too. */}}
{{- define "paquebot.settingKinds" -}}
{{- $address := "([0-9]{1,3}([.][0-9]{1,3}){3}|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)" }}
{{- $network := printf "%s(/([0-9]{1,3}|[0-9]{1,3}([.][0-9]{1,3}){3}))?" $address }}
{{- $listen := "(([0-9A-Za-z.-]*|\\[[0-9A-Fa-f:.]+\\]):[0-9]{1,5}|unix:/.+)" }}
bytes: {pattern: '^ *[0-9]+ *([KkMmGg][Ii]?[Bb]|[Bb])? *$', what: a size such as 64KiB or 25MB}
seconds: {pattern: '^ *[0-9]+([.][0-9]+)?(ms|s|m|h|d)? *$', what: 'a duration such as 30s, 5m or 4h'}
switch: {pattern: '^ *(?i:1|true|yes|on|0|false|no|off) *$', what: true or false}
whole: {pattern: '^ *[-+]?[0-9_]+ *$', what: a whole number}
number: {pattern: '^ *[-+]?([0-9]+([.][0-9]*)?|[.][0-9]+)([eE][-+]?[0-9]+)? *$', what: a number}
network: {pattern: '^ *{{ $network }} *$', what: a network such as 10.0.0.0/8}
networks: {pattern: '^[ ,]*({{ $network }}([ ,]+{{ $network }})*)?[ ,]*$', what: 'a list of networks such as 10.0.0.0/8,2001:db8::/32'}
listen: {pattern: '^ *{{ $listen }}([ ,]+{{ $listen }})* *$', what: 'an address and port such as 0.0.0.0:25 or [::]:25'}
{{- end }}

{{- /* A suggestion for an unknown name: the most similar one, by common runs of three letters. */}}
{{- define "paquebot.settingHint" -}}
{{- $name := upper .name | trimPrefix "PAQUEBOT_" }}
{{- $others := list }}
{{- range $service, $names := .known }}
  {{- if hasKey $names $.name }}{{ $others = append $others (replace "_" "-" $service) }}{{ end }}
{{- end }}
{{- $runs := include "paquebot.runs" $name | fromJsonArray }}
{{- $best := "" }}
{{- $most := 0 }}
{{- range $candidate, $_ := get .known .service }}
  {{- $theirs := include "paquebot.runs" (trimPrefix "PAQUEBOT_" $candidate) | fromJsonArray }}
  {{- $common := 0 }}
  {{- range $runs }}{{ if has . $theirs }}{{ $common = add1 $common }}{{ end }}{{ end }}
  {{- $likeness := div (mul 2000 $common) (add (len $runs) (len $theirs)) }}
  {{- if gt $likeness $most }}{{ $best = $candidate }}{{ $most = $likeness }}{{ end }}
{{- end }}
{{- if $others }} (it is a setting of {{ join ", " $others }}){{ end }}
{{- if gt $most 700 }}; did you mean {{ $best }}?{{ else if not $others }}; `paquebot {{ .service | replace "_" "-" }} --settings` lists what it knows{{ end }}
{{- end }}

{{- define "paquebot.runs" -}}
{{- $padded := printf "  %s " . }}
{{- $runs := list }}
{{- range $start := until (int (sub (len $padded) 2)) }}
  {{- $runs = append $runs (substr $start (int (add $start 3)) $padded) }}
{{- end }}
{{- uniq $runs | toJson }}
{{- end }}
