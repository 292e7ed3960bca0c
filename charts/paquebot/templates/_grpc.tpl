{{/*
How the services connect to recipient_validation: with TLS on port 2552, each with its own certificate, or without
encryption on 2551. The ports differ, so that it can serve both while an upgrade replaces pods of the other kind.
*/}}

{{- define "paquebot.grpcPort" -}}
{{- ternary 2552 2551 .Values.internalTls.enabled -}}
{{- end }}

{{- /* All addresses of the headless Service: calls are spread over them. */}}
{{- define "paquebot.grpcTarget" -}}
{{- printf "dns:///%s-recipient-validation:%s" (include "paquebot.fullname" .) (include "paquebot.grpcPort" .) -}}
{{- end }}

{{- /* imap's certificate is for imap.<this>, and so on: a certificate of another installation has no rights here. */}}
{{- define "paquebot.grpcDomain" -}}
{{- printf "%s.%s.paquebot.internal" (include "paquebot.fullname" .) .Release.Namespace -}}
{{- end }}

{{- /* The callers with a certificate: the services, and the jobs that administrate. */}}
{{- define "paquebot.grpcCallers" -}}
[smtp_ingress, recipient_validation, delivery, relay, imap, pop3, admin]
{{- end }}

{{- /* The Secret with a caller's certificate, key and trusted authorities. (dict "root" $ "caller" "imap") */}}
{{- define "paquebot.grpcSecretName" -}}
{{- $made := printf "%s-grpc-%s" (include "paquebot.fullname" .root) (replace "_" "-" .caller) -}}
{{- /* cert-manager would write into a Secret that Helm manages. */ -}}
{{- if .root.Values.internalTls.certManager.enabled }}{{ $made = printf "%s-certificate" $made }}{{ end -}}
{{- get .root.Values.internalTls.existingSecrets .caller | default $made -}}
{{- end }}

{{- /* The DNS name in a caller's certificate. Clients expect it in the server's, whatever address they connected to. */}}
{{- define "paquebot.grpcIdentity" -}}
{{- printf "%s.%s" (replace "_" "-" .caller) (include "paquebot.grpcDomain" .root) -}}
{{- end }}

{{- define "paquebot.grpcTlsEnv" -}}
{{- if .Values.internalTls.enabled }}
- {name: PAQUEBOT_GRPC_TLS_CERTIFICATE, value: /etc/paquebot/grpc/tls.crt}
- {name: PAQUEBOT_GRPC_TLS_KEY, value: /etc/paquebot/grpc/tls.key}
- {name: PAQUEBOT_GRPC_TLS_CA, value: /etc/paquebot/grpc/ca.crt}
- {name: PAQUEBOT_GRPC_TLS_DOMAIN, value: {{ include "paquebot.grpcDomain" . }}}
{{- end }}
{{- end }}

{{- define "paquebot.grpcServerEnv" -}}
- {name: PAQUEBOT_GRPC_LISTEN, value: {{ include "paquebot.listen" (list . (include "paquebot.grpcPort" .)) | quote }}}
{{- if and .Values.internalTls.enabled .Values.internalTls.acceptPlain }}
- {name: PAQUEBOT_GRPC_PLAIN_LISTEN, value: {{ include "paquebot.listen" (list . 2551) | quote }}}
{{- end }}
{{- if or (not .Values.internalTls.enabled) .Values.internalTls.acceptPlain }}
- {name: PAQUEBOT_GRPC_INSECURE, value: "true"}
{{- end }}
{{- end }}

{{- /* The server's ports, by name and number, as YAML. */}}
{{- define "paquebot.grpcPorts" -}}
grpc: {{ include "paquebot.grpcPort" . }}
{{- if and .Values.internalTls.enabled .Values.internalTls.acceptPlain }}
grpc-plain: 2551
{{- end }}
{{- end }}

{{- define "paquebot.grpcVolumeMounts" -}}
{{- if .root.Values.internalTls.enabled }}
# The directory, not the files, so that renewed certificates are read without a restart.
- {name: grpc-tls, mountPath: /etc/paquebot/grpc, readOnly: true}
{{- end }}
{{- end }}

{{- define "paquebot.grpcVolumes" -}}
{{- if .root.Values.internalTls.enabled }}
- name: grpc-tls
  secret:
    secretName: {{ include "paquebot.grpcSecretName" . | quote }}
    defaultMode: 0440
{{- end }}
{{- end }}

{{- /*
Whether the chart creates the certificates. It does not when each rendering would create new ones: when the values name
the Secrets of all services and none of these can be read.
*/}}
{{- define "paquebot.grpcMade" -}}
{{- $tls := .Values.internalTls }}
{{- $unseen := true }}
{{- range without (include "paquebot.grpcCallers" . | fromYamlArray) "admin" }}
{{- $name := get $.Values.secrets.existing . }}
{{- if or (not $name) (lookup "v1" "Secret" $.Release.Namespace $name) }}{{ $unseen = false }}{{ end }}
{{- end }}
{{- not (or (not $tls.enabled) $tls.existingSecrets $tls.certManager.enabled $unseen) }}
{{- end }}

{{- /* Fails with one sentence when the values name only some of the Secrets: another authority would sign the others. */}}
{{- define "paquebot.checkGrpcSecrets" -}}
{{- $missing := list }}
{{- range include "paquebot.grpcCallers" . | fromYamlArray }}
{{- if not (get $.Values.internalTls.existingSecrets .) }}{{ $missing = append $missing . }}{{ end }}
{{- end }}
{{- if $missing }}
{{- fail (printf "internalTls.existingSecrets: set the Secrets of %s, too" (join ", " $missing)) }}
{{- end }}
{{- end }}
