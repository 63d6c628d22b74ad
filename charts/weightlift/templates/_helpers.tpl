{{- /* A release's name may have dots, a Service's may not. */}}
{{- define "weightlift.fullname" -}}
{{- $name := .Release.Name -}}
{{- if not (contains .Chart.Name $name) }}{{ $name = printf "%s-%s" $name .Chart.Name }}{{ end -}}
{{- $name | replace "." "-" | trunc 40 | trimAll "-" -}}
{{- end }}

{{- define "weightlift.helmLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "weightlift.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{- /* A part of a Kubernetes name, from a dest. */}}
{{- define "weightlift.slug" -}}
{{- . | lower | replace "/" "-" | replace "." "-" | replace "_" "-" | trimAll "-" -}}
{{- end }}

{{- /* The file that is fetched, empty for the list in the values. */}}
{{- define "weightlift.list" -}}
{{- if .Values.modelsLock -}}
models.lock
{{- else if .Values.modelsFile -}}
models.yaml
{{- end -}}
{{- end }}

{{- define "weightlift.listData" -}}
{{- with .Values.modelsFile }}
models.yaml: {{ . | quote }}
{{- end }}
{{- with .Values.modelsLock }}
models.lock: {{ . | quote }}
{{- end }}
{{- end }}

{{- /* Another list is another ConfigMap, so that no pod finds an older one that its node still has. */}}
{{- define "weightlift.listName" -}}
{{- printf "%s-models-%s" (include "weightlift.fullname" .) (include "weightlift.listData" . | sha256sum | trunc 8) -}}
{{- end }}

{{- /* JSON: each DEST with the revision that it is pinned to, empty for a branch. */}}
{{- define "weightlift.revisions" -}}
{{- $revisions := dict -}}
{{- range .Values.models -}}
{{- $_ := set $revisions .dest (.expectRevision | default (regexFind "@[0-9a-f]{40}$" .source | trimPrefix "@")) -}}
{{- end -}}
{{- range (fromJson (.Values.modelsLock | default "{}")).models -}}
{{- $_ := set $revisions .name .revision -}}
{{- end -}}
{{- if not .Values.modelsLock -}}
{{- range (fromYaml .Values.modelsFile).models -}}
{{- $source := .source | toString -}}
{{- $name := .name | default (regexReplaceAll "@[^@/]*$" $source "" | base | lower) | toString -}}
{{- $_ := set $revisions $name (.expect | default (regexFind "@[0-9a-f]{40}$" $source | trimPrefix "@")) -}}
{{- end -}}
{{- end -}}
{{- $revisions | toJson -}}
{{- end }}

{{- define "weightlift.serverName" -}}
{{- .Values.server.name | default (include "weightlift.fullname" .) -}}
{{- end }}

{{- /* "true" if any container fetches. */}}
{{- define "weightlift.fetches" -}}
{{- if or (ne .Values.download.kind "none") (and .Values.server.enabled (not .Values.server.waitOnly)) -}}
true
{{- end -}}
{{- end }}

{{- define "weightlift.serviceAccountIsOurs" -}}
{{- if or .Values.serviceAccount.create (and (eq .Values.lock "kubernetes") (not .Values.serviceAccount.name) (include "weightlift.fetches" .)) -}}
true
{{- end -}}
{{- end }}

{{- /* Empty: the namespace's default. */}}
{{- define "weightlift.serviceAccountName" -}}
{{- if .Values.serviceAccount.name -}}
{{- .Values.serviceAccount.name -}}
{{- else if include "weightlift.serviceAccountIsOurs" . -}}
{{- include "weightlift.fullname" . -}}
{{- end -}}
{{- end }}

{{- define "weightlift.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch # else each start walks over every file of the volume
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "weightlift.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- /* The arguments of a fetch, as a YAML list. Takes root and model, and link where a server follows. */}}
{{- define "weightlift.fetchArgs" -}}
{{- $args := list "fetch" -}}
{{- if eq .root.Values.lock "kubernetes" }}{{ $args = concat $args (list "--lock" "kubernetes") }}{{ end -}}
{{- if .root.Values.s3.pathStyle }}{{ $args = append $args "--s3-path-style" }}{{ end -}}
{{- if .root.Values.s3.anonymous }}{{ $args = append $args "--s3-anonymous" }}{{ end -}}
{{- $list := include "weightlift.list" .root -}}
{{- if $list -}}
{{- $args = concat $args .root.Values.extraArgs (list (ternary "--locked" "--models" (eq $list "models.lock")) (printf "/etc/weightlift/%s" $list)) -}}
{{- if .link }}{{ $args = concat $args (list "--only" .model.dest) }}{{ end -}}
{{- else -}}
{{- range .model.include }}{{ $args = append $args (printf "--include=%s" .) }}{{ end -}}
{{- range .model.exclude }}{{ $args = append $args (printf "--exclude=%s" .) }}{{ end -}}
{{- if .model.all }}{{ $args = append $args "--all" }}{{ end -}}
{{- if .model.denyPickle }}{{ $args = append $args "--deny-pickle" }}{{ end -}}
{{- with .model.expectRevision }}{{ $args = append $args (printf "--expect-revision=%s" .) }}{{ end -}}
{{- $args = concat $args .root.Values.extraArgs (.model.args | default list) -}}
{{- $args = concat $args (list .model.source .model.dest) -}}
{{- end -}}
{{- if .link }}{{ $args = concat $args (list "--link" "/model/current") }}{{ end -}}
{{- $args | toYaml -}}
{{- end }}

{{- /* The container that fetches. Takes root, model and name. */}}
{{- define "weightlift.fetchContainer" -}}
{{- $values := .root.Values -}}
- name: {{ .name }}
  image: {{ include "weightlift.image" .root | quote }}
  {{- with $values.image.pullPolicy }}
  imagePullPolicy: {{ . }}
  {{- end }}
  args:
    {{- include "weightlift.fetchArgs" . | nindent 4 }}
  {{- $env := include "weightlift.fetchEnv" .root | trim }}
  {{- with $env }}
  env:
    {{- . | nindent 4 }}
  {{- end }}
  resources:
    {{- toYaml $values.resources | nindent 4 }}
  securityContext:
    {{- include "weightlift.securityContext" . | nindent 4 }}
  terminationMessagePolicy: FallbackToLogsOnError
  volumeMounts:
    - name: models
      mountPath: /data/models
    {{- if include "weightlift.list" .root }}
    - name: models-list
      mountPath: /etc/weightlift
      readOnly: true
    {{- end }}
    {{- if .link }}
    - name: model
      mountPath: /model
    {{- end }}
    {{- if and $values.huggingface.secretName $values.huggingface.asFile }}
    - name: hf-token
      mountPath: /var/run/secrets/huggingface
      readOnly: true
    {{- end }}
    {{- if $values.caBundle.configMapName }}
    - name: ca-bundle
      mountPath: /etc/weightlift-ca
      readOnly: true
    {{- end }}
    {{- if eq $values.lock "kubernetes" }}
    # Mounted here and nowhere else: the server of the same pod gets no token.
    - name: kube-api-access
      mountPath: /var/run/secrets/kubernetes.io/serviceaccount
      readOnly: true
    {{- end }}
{{- end }}

{{- define "weightlift.fetchEnv" -}}
{{- with .Values.huggingface }}
{{- if and .secretName .asFile }}
- name: HF_TOKEN_PATH
  value: /var/run/secrets/huggingface/{{ .secretKey }}
{{- else if .secretName }}
- name: HF_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ .secretName | quote }}
      key: {{ .secretKey | quote }}
      {{- if .optional }}
      optional: true
      {{- end }}
{{- end }}
{{- with .endpoint }}
- name: HF_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- with .Values.s3 }}
{{- if .secretName }}
{{- $secret := .secretName }}
{{- range list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" "AWS_SESSION_TOKEN" }}
- name: {{ . }}
  valueFrom:
    secretKeyRef:
      name: {{ $secret | quote }}
      key: {{ . }}
      {{- if eq . "AWS_SESSION_TOKEN" }}
      optional: true
      {{- end }}
{{- end }}
{{- end }}
{{- with .region }}
- name: AWS_REGION
  value: {{ . | quote }}
{{- end }}
{{- with .endpoint }}
- name: AWS_ENDPOINT_URL_S3
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- if .Values.caBundle.configMapName }}
- name: SSL_CERT_FILE
  value: /etc/weightlift-ca/{{ .Values.caBundle.key }}
{{- end }}
{{- if eq .Values.lock "kubernetes" }}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* The volume of the models, and what a container that fetches needs. Takes root, fetch and list. */}}
{{- define "weightlift.volumes" -}}
{{- $values := .root.Values -}}
- name: models
  persistentVolumeClaim:
    claimName: {{ $values.storage.claimName | quote }}
    {{- if include "weightlift.readOnly" .root }}
    readOnly: true
    {{- end }}
{{- if or .list (and .fetch (include "weightlift.list" .root)) }}
- name: models-list
  configMap:
    name: {{ include "weightlift.listName" .root | quote }}
    # An upgrade removes it. A pod of before then ends with exit 2, and does not wait for it for ever.
    optional: true
{{- end }}
{{- if .fetch }}
{{- if and $values.huggingface.secretName $values.huggingface.asFile }}
- name: hf-token
  secret:
    secretName: {{ $values.huggingface.secretName | quote }}
    defaultMode: 0440
    {{- if $values.huggingface.optional }}
    optional: true
    {{- end }}
{{- end }}
{{- if $values.caBundle.configMapName }}
- name: ca-bundle
  configMap:
    name: {{ $values.caBundle.configMapName | quote }}
{{- end }}
{{- if eq $values.lock "kubernetes" }}
- name: kube-api-access
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken:
          path: token
          expirationSeconds: 3607
      - configMap:
          name: kube-root-ca.crt
          items:
            - key: ca.crt
              path: ca.crt
      - downwardAPI:
          items:
            - path: namespace
              fieldRef:
                fieldPath: metadata.namespace
{{- end }}
{{- end }}
{{- end }}

{{- /* "true" if nobody can write to the volume. */}}
{{- define "weightlift.readOnly" -}}
{{- if or (eq .Values.storage.mode "rox") (and (eq .Values.storage.mode "existingClaim") .Values.storage.readOnly) -}}
true
{{- end -}}
{{- end }}

{{- /* What the schema cannot say: values that do not fit each other. */}}
{{- define "weightlift.validate" -}}
{{- if and .Values.prune.enabled (include "weightlift.readOnly" .) }}{{ fail "prune.enabled: nothing can be removed from a volume that is read-only" }}{{ end -}}
{{- $list := include "weightlift.list" . -}}
{{- if not (or .Values.models $list) }}{{ fail "models is empty: name at least one, with source and dest, or give modelsFile or modelsLock" }}{{ end -}}
{{- if and .Values.models $list }}{{ fail "models is given beside modelsFile or modelsLock: give one of them" }}{{ end -}}
{{- if and .Values.modelsFile .Values.modelsLock (not .Values.prune.unlisted) }}{{ fail "modelsFile is given beside modelsLock, which alone says what to fetch: leave modelsFile out, or set prune.unlisted" }}{{ end -}}
{{- if and .Values.prune.unlisted (not .Values.modelsFile) }}{{ fail "prune.unlisted needs modelsFile: it says which models stay" }}{{ end -}}
{{- range $key, $parsed := dict "modelsLock" (fromJson (.Values.modelsLock | default "{}")) "modelsFile" (fromYaml .Values.modelsFile) -}}
{{- if hasKey $parsed "Error" }}{{ fail (printf "%s cannot be read: %s" $key (get $parsed "Error")) }}{{ end -}}
{{- if and (get $.Values $key) (not (get $parsed "models")) }}{{ fail (printf "%s names no models" $key) }}{{ end -}}
{{- end -}}
{{- $dests := dict -}}
{{- $slugs := dict -}}
{{- range .Values.models -}}
{{- if hasKey $dests .dest }}{{ fail (printf "two models have the dest `%s`" .dest) }}{{ end -}}
{{- $slug := include "weightlift.slug" .dest -}}
{{- if hasKey $slugs $slug }}{{ fail (printf "the dests `%s` and `%s` are too alike for two names" .dest (get $slugs $slug)) }}{{ end -}}
{{- $_ := set $dests .dest true -}}
{{- $_ := set $slugs $slug .dest -}}
{{- end -}}
{{- with .Values.server -}}
{{- if and .enabled $list (not .model) }}{{ fail (printf "server.model is empty: say which model of %s the server loads" $list) }}{{ end -}}
{{- $revisions := include "weightlift.revisions" $ | fromJson -}}
{{- if and .enabled .model (not (hasKey $revisions .model)) (not (contains "${" (keys $revisions | join " "))) }}{{ fail (printf "server.model `%s` is no dest of %s" .model ($list | default "models")) }}{{ end -}}
{{- end -}}
{{- $name := include "weightlift.serverName" . -}}
{{- if and .Values.server.enabled (regexMatch "^[0-9]" $name) }}{{ fail (printf "a Service's name cannot begin with a digit, as `%s` does: set server.name" $name) }}{{ end -}}
{{- with .Values.storage -}}
{{- if and .readOnly (ne .mode "existingClaim") }}{{ fail "storage.readOnly is for storage.mode existingClaim" }}{{ end -}}
{{- if and (eq .mode "rox") (not .dataSource) }}{{ fail "storage.mode rox needs storage.dataSource: a volume that nobody can write must come filled" }}{{ end -}}
{{- if and .dataSource (ne .mode "rox") }}{{ fail "storage.dataSource is for storage.mode rox" }}{{ end -}}
{{- if and (or .hostPath.path .hostPath.nodes) (not (has .mode (list "hostPath" "local"))) }}{{ fail "storage.hostPath is for storage.mode hostPath and local" }}{{ end -}}
{{- if and (has .mode (list "hostPath" "local")) (not .hostPath.path) }}{{ fail (printf "storage.mode %s needs storage.hostPath.path" .mode) }}{{ end -}}
{{- if and (has .mode (list "hostPath" "local")) (not .hostPath.nodes) }}{{ fail (printf "storage.mode %s needs storage.hostPath.nodes: elsewhere the directory is another one" .mode) }}{{ end -}}
{{- end -}}
{{- if and .Values.serviceAccount.annotations (not (include "weightlift.serviceAccountIsOurs" .)) -}}
{{- fail "serviceAccount.annotations are for an account that is made here: set serviceAccount.create to true, or annotate your own" -}}
{{- end -}}
{{- if and (include "weightlift.readOnly" .) (include "weightlift.fetches" .) -}}
{{- fail "the volume is read-only: set download.kind to none and server.waitOnly to true" -}}
{{- end -}}
{{- end }}
