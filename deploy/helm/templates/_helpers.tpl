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

{{- /* Fields of a pod's spec: of the root, and of the component whose values they are. */ -}}
{{- define "edgeproxy.pod" -}}
{{- $root := index . 0 }}{{ $of := index . 1 -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext: {{ toJson $root.Values.podSecurityContext }}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- range $field := list "nodeSelector" "tolerations" "affinity" "priorityClassName" "initContainers" "hostAliases" "dnsConfig" }}
{{- with get $of $field }}
{{ $field }}: {{ toJson . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "edgeproxy.container" -}}
image: {{ include "edgeproxy.image" .Values.image }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext: {{ toJson .Values.containerSecurityContext }}
{{- end }}

{{- /* The name of a component's service account; none for that of the namespace. */ -}}
{{- define "edgeproxy.serviceAccount" -}}
{{- $root := index . 0 }}{{ $component := index . 1 }}{{ $account := (get $root.Values $component).serviceAccount -}}
{{- if or $account.create $account.name -}}
{{ $account.name | default (printf "%s-%s" $root.Release.Name $component) }}
{{- end }}
{{- end }}

{{- /* Families of a Service's addresses. */ -}}
{{- define "edgeproxy.families" -}}
{{- with .Values.ipFamilyPolicy }}
ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .Values.ipFamilies }}
ipFamilies: {{ toJson . }}
{{- end }}
{{- end }}

{{- define "edgeproxy.collectorFiles" -}}
{{- include "edgeproxy.envFrom" (list .Values.secrets.collectorEnvironment .Values.collector.extraEnvFrom) -}}
volumeMounts:
  - {name: config, mountPath: /etc/edgeproxy}
  - {name: directory-key, mountPath: /var/run/secrets/edgeproxy}
  - {name: scratch, mountPath: /var/lib/edgeproxy}
  {{- with .Values.collector.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "edgeproxy.collectorVolumes" -}}
{{- $key := .Values.secrets.directoryKey -}}
volumes:
  - {name: config, configMap: {name: {{ .Release.Name }}-collector}}
  - {name: directory-key, secret: {secretName: {{ $key.name }}, defaultMode: 0440, items: [{key: {{ $key.key }}, path: directory.key}]}}
  - {name: scratch, emptyDir: {}}
  {{- with .Values.collector.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- /* `envFrom` of a Secret's name, "" for none, and of more sources. */ -}}
{{- define "edgeproxy.envFrom" -}}
{{- $secret := index . 0 }}{{ $more := index . 1 -}}
{{- if or $secret $more -}}
envFrom:
  {{- with $secret }}
  - {secretRef: {name: {{ . | quote }}}}
  {{- end }}
  {{- with $more }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{ end -}}
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

{{- define "edgeproxy.listen" -}}
{{- $root := index . 0 }}{{ $port := index . 1 }}{{ $listen := list -}}
{{- range $root.Values.listenAddresses }}{{ $listen = append $listen (printf "%s:%v" . $port) }}{{ end -}}
{{- toJson $listen -}}
{{- end }}

{{- define "edgeproxy.edgeSettings" -}}
{{- $edge := .Values.edge -}}
{{- range $name := list "region" "listen" "admin" "workers" "state" "hub" "include" "usage" "directory" "tables" "drain" -}}
{{- if hasKey $edge.settings $name }}{{ fail (printf "edge.settings.%s: the chart sets it" $name) }}{{ end -}}
{{- end -}}
{{- $own := dict
  "region" (required "region names the region of these edges" .Values.region)
  "listen" (include "edgeproxy.listen" (list . 8080) | fromJsonArray)
  "admin" (dict "address" (printf "%s:9090" (first .Values.listenAddresses)) "tokens" (required "edge.admin.tokens says who may ask admin listeners: NAME:SHA256" $edge.admin.tokens))
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
{{- $listen := list -}}
{{- range .Values.listenAddresses }}{{ $listen = append $listen (dict "address" (printf "%s:9100" .) "behind_tls" true) }}{{ end -}}
{{- $own := dict
  "listen" $listen
  "database" "${DATABASE_URL}"
  "directory" (dict "key" "/var/run/secrets/edgeproxy/directory.key")
  "include" (list "tiers.yaml") -}}
{{- $readers := .Values.collector.metrics.tokens -}}
{{- if and .Values.monitoring.enabled (not $readers) }}{{ fail "collector.metrics.tokens says who may read metrics, money among them: NAME:SHA256 of the token in secrets.metricsToken" }}{{ end -}}
{{- if $readers }}{{ $own = merge $own (dict "metrics" (dict "tokens" $readers)) }}{{ end -}}
{{- toYaml (merge $own $settings) -}}
{{- end }}
