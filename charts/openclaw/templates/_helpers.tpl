{{- define "openclaw.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 54 | trimSuffix "-" }}
{{- end }}

{{/* A Service allows 63 characters and no dot; the longest suffix leaves 54. */}}
{{- define "openclaw.fullname" -}}
{{- $name := include "openclaw.name" . -}}
{{- $full := printf "%s-%s" .Release.Name $name -}}
{{- if .Values.fullnameOverride -}}
{{- $full = .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- $full = .Release.Name -}}
{{- end -}}
{{ $full | replace "." "-" | trunc 54 | trimSuffix "-" }}
{{- end }}

{{- define "openclaw.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (include "openclaw.fullname" .) }}
{{- end }}

{{/* What selects the operator's pods. A Deployment's selector can never change: nothing here may depend on a version. */}}
{{- define "openclaw.selector" -}}
app.kubernetes.io/name: {{ include "openclaw.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{/* Labels of every object. The chart's own win over the user's. */}}
{{- define "openclaw.labels" -}}
{{- $own := include "openclaw.selector" . | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/part-of" "openclaw" -}}
{{- $_ := set $own "app.kubernetes.io/version" .Chart.AppVersion -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .Release.Service -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_") -}}
{{ mergeOverwrite (deepCopy (.Values.commonLabels | default dict)) $own | toYaml }}
{{- end }}

{{/* An image by digest, or else by tag. Takes the image's values and the tag to fall back on. */}}
{{- define "openclaw.image" -}}
{{- $image := .image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .appVersion }}
{{- end }}
{{- end }}
