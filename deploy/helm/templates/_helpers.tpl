{{- define "edgeproxy.labels" -}}
app.kubernetes.io/name: edgeproxy
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "edgeproxy.edge" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: edge
{{- end }}

{{- define "edgeproxy.collector" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: collector
{{- end }}

{{- define "edgeproxy.image" -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ required "image.digest says which image, or image.tag" .tag }}
{{- end }}
{{- end }}

{{- define "edgeproxy.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext: {runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- end }}

{{- define "edgeproxy.container" -}}
image: {{ include "edgeproxy.image" .Values.image }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
{{- end }}

{{- define "edgeproxy.collectorFiles" -}}
{{- with .Values.secrets.collectorEnvironment -}}
envFrom: [{secretRef: {name: {{ . | quote }}}}]
{{ end -}}
volumeMounts:
  - {name: config, mountPath: /etc/edgeproxy}
  - {name: directory-key, mountPath: /var/run/secrets/edgeproxy}
  - {name: scratch, mountPath: /var/lib/edgeproxy}
{{- end }}

{{- define "edgeproxy.collectorVolumes" -}}
{{- $key := .Values.secrets.directoryKey -}}
volumes:
  - {name: config, configMap: {name: {{ .Release.Name }}-collector}}
  - {name: directory-key, secret: {secretName: {{ $key.name }}, defaultMode: 0440, items: [{key: {{ $key.key }}, path: directory.key}]}}
  - {name: scratch, emptyDir: {}}
{{- end }}

{{- define "edgeproxy.secret" -}}
{secretKeyRef: {name: {{ .name | quote }}, key: {{ .key | quote }}}}
{{- end }}

{{- define "edgeproxy.collectorUrl" -}}
{{- if .Values.collector.url -}}
{{ .Values.collector.url }}
{{- else if .Values.collector.enabled -}}
http://{{ .Release.Name }}-collector:{{ .Values.collector.service.port }}
{{- else -}}
{{ fail "collector.url says where edges ship to, as this release has no collector" }}
{{- end }}
{{- end }}

{{- define "edgeproxy.edgeSettings" -}}
{{- $edge := .Values.edge -}}
{{- range $name := list "region" "listen" "admin" "workers" "state" "hub" "include" "usage" "directory" "tables" "drain" -}}
{{- if hasKey $edge.settings $name }}{{ fail (printf "edge.settings.%s: the chart sets it" $name) }}{{ end -}}
{{- end -}}
{{- $own := dict
  "region" (required "region names the region of these edges" .Values.region)
  "listen" "0.0.0.0:8080"
  "admin" (dict "address" "0.0.0.0:9090" "tokens" (required "edge.admin.tokens says who may ask admin listeners: NAME:SHA256" $edge.admin.tokens))
  "workers" $edge.workers
  "state" "/var/lib/edgeproxy"
  "hub" "${HUB_URL}"
  "include" (list "tiers.yaml")
  "usage" (dict "collector" (include "edgeproxy.collectorUrl" .) "token" "${EDGE_TOKEN}")
  "directory" (dict "from" "collector" "trust" (required "trust is what `edgeproxy directory keygen` printed" .Values.trust))
  "tables" $edge.tables
  "drain" (printf "%vs" $edge.drainSeconds) -}}
{{- toYaml (merge $own $edge.settings) -}}
{{- end }}

{{- define "edgeproxy.collectorSettings" -}}
{{- $settings := .Values.collector.settings -}}
{{- range $name := list "listen" "database" "directory" "include" "metrics" -}}
{{- if hasKey $settings $name }}{{ fail (printf "collector.settings.%s: the chart sets it" $name) }}{{ end -}}
{{- end -}}
{{- $own := dict
  "listen" (dict "address" "0.0.0.0:9100" "behind_tls" true)
  "database" "${DATABASE_URL}"
  "directory" (dict "key" "/var/run/secrets/edgeproxy/directory.key")
  "include" (list "tiers.yaml") -}}
{{- $readers := .Values.collector.metrics.tokens -}}
{{- if and .Values.monitoring.enabled (not $readers) }}{{ fail "collector.metrics.tokens says who may read metrics, money among them: NAME:SHA256 of the token in secrets.metricsToken" }}{{ end -}}
{{- if $readers }}{{ $own = merge $own (dict "metrics" (dict "tokens" $readers)) }}{{ end -}}
{{- toYaml (merge $own $settings) -}}
{{- end }}
