{{- /* Of every pod. OpenShift gives UID, GID and fsGroup by itself, and refuses any that are named. */}}
{{- define "weightlift.podSecurityContext" -}}
{{- $context := .Values.podSecurityContext | default dict -}}
{{- if .Values.openshift }}{{ $context = omit $context "runAsUser" "runAsGroup" "fsGroup" }}{{ end -}}
runAsNonRoot: true
{{- range $key := list "runAsUser" "runAsGroup" "fsGroup" }}
{{- if and (hasKey $context $key) (not (kindIs "invalid" (get $context $key))) }}
{{ $key }}: {{ get $context $key | int64 }}
{{- end }}
{{- end }}
{{- with $context.fsGroupChangePolicy }}
fsGroupChangePolicy: {{ . }}{{ if eq . "OnRootMismatch" }} # else each start walks over every file of the volume{{ end }}
{{- end }}
{{- with $context.supplementalGroups }}
supplementalGroups:
  {{- range . }}
  - {{ . | int64 }}
  {{- end }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- /* Of every pod that mounts a volume of one node. */}}
{{- define "weightlift.volumeLabel" -}}
{{- if eq .Values.storage.mode "rwo" -}}
weightlift-volume: {{ .Values.storage.claimName | trunc 63 | trimAll "-." | quote }}
{{- end -}}
{{- end }}

{{- /* Takes root and affinity, that of the values, which comes first. */}}
{{- define "weightlift.affinity" -}}
{{- if .affinity -}}
{{- toYaml .affinity -}}
{{- else if eq .root.Values.storage.mode "rwo" -}}
# All on the node of the first, Jobs too: on another one the volume cannot be attached.
podAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels:
          {{- include "weightlift.volumeLabel" .root | nindent 10 }}
{{- end -}}
{{- end }}

{{- /* Of Jobs. Those of the values come first. */}}
{{- define "weightlift.jobTolerations" -}}
{{- if .Values.download.tolerations -}}
{{- toYaml .Values.download.tolerations -}}
{{- else if eq .Values.storage.mode "rwo" -}}
# The volume is where the servers are: on a GPU node, which may let nothing else in.
- key: nvidia.com/gpu
  operator: Exists
  effect: NoSchedule
{{- end -}}
{{- end }}

{{- define "weightlift.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- /*
A container of weightlift. Takes root, args and, where there are any, env and mounts, all YAML; readOnly
for the volume of the models. It has one name everywhere: `kubectl logs POD -c weightlift`.
*/}}
{{- define "weightlift.container" -}}
{{- $values := .root.Values -}}
- name: weightlift
  image: {{ include "weightlift.image" .root | quote }}
  {{- with $values.image.pullPolicy }}
  imagePullPolicy: {{ . }}
  {{- end }}
  args:
    {{- .args | nindent 4 }}
  env:
    # Pods that wait for this one name it, and its node.
    - name: NODE_NAME
      valueFrom:
        fieldRef:
          fieldPath: spec.nodeName
    - name: POD_NAME
      valueFrom:
        fieldRef:
          fieldPath: metadata.name
    {{- with .env | default "" | trim }}
    {{- . | nindent 4 }}
    {{- end }}
  resources:
    {{- toYaml $values.resources | nindent 4 }}
  securityContext:
    {{- include "weightlift.securityContext" .root | nindent 4 }}
  terminationMessagePolicy: FallbackToLogsOnError
  volumeMounts:
    - name: models
      mountPath: /data/models
      {{- if .readOnly }}
      readOnly: true
      {{- end }}
    {{- with .mounts | default "" | trim }}
    {{- . | nindent 4 }}
    {{- end }}
{{- end }}

{{- /* The container that fetches. Takes root, model, and link where a server follows. */}}
{{- define "weightlift.fetchContainer" -}}
{{- $args := include "weightlift.fetchArgs" . -}}
{{- $env := include "weightlift.fetchEnv" .root -}}
{{- $mounts := include "weightlift.fetchMounts" . -}}
{{- include "weightlift.container" (dict "root" .root "args" $args "env" $env "mounts" $mounts) -}}
{{- end }}

{{- /* The arguments of a fetch, as a YAML list. Takes root, model and link; deadline for the pod of a Job. */}}
{{- define "weightlift.fetchArgs" -}}
{{- $values := .root.Values -}}
{{- $args := list "fetch" -}}
{{- if eq $values.lock "kubernetes" }}{{ $args = concat $args (list "--lock" "kubernetes") }}{{ end -}}
{{- if $values.s3.pathStyle }}{{ $args = append $args "--s3-path-style" }}{{ end -}}
{{- if $values.s3.anonymous }}{{ $args = append $args "--s3-anonymous" }}{{ end -}}
{{- with include "weightlift.deadline" . }}{{ $args = append $args . }}{{ end -}}
{{- $list := include "weightlift.list" .root -}}
{{- if $list -}}
{{- $args = concat $args $values.extraArgs (list (ternary "--locked" "--models" (eq $list "models.lock")) (printf "/etc/weightlift/%s" $list)) -}}
{{- if .link }}{{ $args = concat $args (list "--only" .model.dest) }}{{ end -}}
{{- else -}}
{{- range .model.include }}{{ $args = append $args (printf "--include=%s" .) }}{{ end -}}
{{- range .model.exclude }}{{ $args = append $args (printf "--exclude=%s" .) }}{{ end -}}
{{- if .model.all }}{{ $args = append $args "--all" }}{{ end -}}
{{- if .model.denyPickle }}{{ $args = append $args "--deny-pickle" }}{{ end -}}
{{- with .model.expectRevision }}{{ $args = append $args (printf "--expect-revision=%s" .) }}{{ end -}}
{{- $args = concat $args $values.extraArgs (.model.args | default list) -}}
{{- $args = concat $args (list .model.source .model.dest) -}}
{{- end -}}
{{- if .link }}{{ $args = concat $args (list "--link" "/model/current") }}{{ end -}}
{{- $args | toYaml -}}
{{- end }}

{{- /*
The kubelet ends a pod at activeDeadlineSeconds without a message; weightlift ends a minute before, with one.
Empty where the values have a `--deadline` of their own.
*/}}
{{- define "weightlift.deadline" -}}
{{- $seconds := .root.Values.download.activeDeadlineSeconds | int64 -}}
{{- $given := concat .root.Values.extraArgs (.model.args | default list) | join " " -}}
{{- if and $seconds (not .link) (not (contains "--deadline" $given)) -}}
--deadline={{ sub $seconds 60 }}s
{{- end -}}
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
{{- range $variable, $key := dict "HTTPS_PROXY" "https" "HTTP_PROXY" "http" "NO_PROXY" "noProxy" }}
{{- with get $.Values.proxy $key }}
- name: {{ $variable }}
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- if eq .Values.lock "kubernetes" }}
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* What a container that fetches finds in addition to the models. Takes root and link. */}}
{{- define "weightlift.fetchMounts" -}}
{{- $values := .root.Values -}}
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
{{- with $values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- if eq $values.lock "kubernetes" }}
# Mounted here and nowhere else: the server of the same pod gets no token.
- name: kube-api-access
  mountPath: /var/run/secrets/kubernetes.io/serviceaccount
  readOnly: true
{{- end }}
{{- end }}

{{- /* The volume of the models, and what a container that fetches needs. Takes root, fetch and list. */}}
{{- define "weightlift.volumes" -}}
{{- $values := .root.Values -}}
- name: models
  {{- if eq $values.storage.mode "emptyDir" }}
  emptyDir:
    sizeLimit: {{ $values.storage.size }}
  {{- else }}
  persistentVolumeClaim:
    claimName: {{ $values.storage.claimName | quote }}
    {{- if include "weightlift.readOnly" .root }}
    readOnly: true
    {{- end }}
  {{- end }}
{{- if or .list (and .fetch (include "weightlift.list" .root)) }}
- name: models-list
  configMap:
    name: {{ include "weightlift.listName" .root | quote }}
    # An upgrade removes it. A pod of before then ends with exit 2, and does not wait for it forever.
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
{{- with $values.extraVolumes }}
{{ toYaml . }}
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
