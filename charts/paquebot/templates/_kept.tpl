{{/*
Secrets that an earlier revision made and that this one does not use. Helm keeps them in the cluster
(helm.sh/resource-policy), and `helm rollback` fails for what is in the cluster, in the revision that it goes to, and not in
the one that it comes from. So they stay in every revision, as they are, until somebody deletes them.
*/}}

{{- /* (dict "root" $ "name" NAME). Nothing where there is none, or where it is not this release's. */}}
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

{{- /* Whether a release of this name made the object for us, to be kept. */}}
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
