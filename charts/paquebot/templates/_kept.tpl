{{/*
Secrets that an earlier revision created and this one does not use. Helm keeps them in the cluster
(helm.sh/resource-policy), and `helm rollback` fails for objects that are in the cluster and in the target revision, but not
in the current one. So every revision includes them unchanged until the user deletes them.
*/}}

{{- /* (dict "root" $ "name" NAME). Empty when there is none, or when it is not this release's. */}}
{{- define "paquebot.keptSecret" -}}
{{- $found := lookup "v1" "Secret" .root.Release.Namespace .name | default dict }}
{{- if eq (include "paquebot.isKept" (dict "root" .root "object" $found)) "true" }}
---
apiVersion: v1
kind: Secret
metadata:
  name: {{ .name }}
  labels:
    {{- include "paquebot.labels" (dict "root" .root "component" (dig "metadata" "labels" "app.kubernetes.io/component" "kept" $found)) | nindent 4 }}
  annotations:
    {{- omit $found.metadata.annotations "meta.helm.sh/release-name" "meta.helm.sh/release-namespace" "kubectl.kubernetes.io/last-applied-configuration" | toYaml | nindent 4 }}
type: {{ $found.type | default "Opaque" }}
{{- with $found.data }}
data:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Whether a release of this name created the object, to be kept. */}}
{{- define "paquebot.isKept" -}}
{{- $notes := dig "metadata" "annotations" dict .object | default dict }}
{{- $kept := eq (get $notes "helm.sh/resource-policy") "keep" }}
{{- $ours := eq (include "paquebot.isOurs" .) "true" }}
{{- and $kept $ours }}
{{- end }}

{{- define "paquebot.isOurs" -}}
{{- $notes := dig "metadata" "annotations" dict .object | default dict }}
{{- and (eq (get $notes "meta.helm.sh/release-name") .root.Release.Name) (eq (get $notes "meta.helm.sh/release-namespace") .root.Release.Namespace) }}
{{- end }}
