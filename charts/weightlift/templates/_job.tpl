{{- /* Of a Job or CronJob. Takes root and component. */}}
{{- define "weightlift.jobLabels" -}}
{{- include "weightlift.helmLabels" .root }}
app.kubernetes.io/name: weightlift
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "weightlift.podLabels" -}}
app.kubernetes.io/name: weightlift
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- /*
The spec of a Job. Takes root, component, backoffLimit, container and volumes (YAML); if there are any also
ttlSecondsAfterFinished, activeDeadlineSeconds, podAnnotations, podLabels and serviceAccountName.
*/}}
{{- define "weightlift.job" -}}
{{- $values := .root.Values -}}
backoffLimit: {{ .backoffLimit | int64 }}
# A replacement starts only when the old pod has ended, so that two never fetch side by side.
podReplacementPolicy: Failed
podFailurePolicy:
  rules:
    # Drained, preempted or evicted: not a failure, not counted. The next pod resumes.
    - action: Ignore
      onPodConditions:
        - type: DisruptionTarget
          status: "True"
    # What another attempt cannot mend: usage (2), not found (10), access (11), integrity (12),
    # unsafe (13), unusable volume (14), no space (15), conflict (16).
    - action: FailJob
      onExitCodes:
        containerName: weightlift
        operator: In
        values: [2, 10, 11, 12, 13, 14, 15, 16]
{{- with .ttlSecondsAfterFinished }}
ttlSecondsAfterFinished: {{ . }}
{{- end }}
template:
  metadata:
    {{- with .podAnnotations }}
    annotations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    labels:
      {{- include "weightlift.podLabels" . | nindent 6 }}
      {{- with include "weightlift.volumeLabel" .root }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- with .podLabels }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
  spec:
    restartPolicy: Never # podFailurePolicy demands it
    {{- with .activeDeadlineSeconds }}
    # Of each pod. That of the Job would end it without a word.
    activeDeadlineSeconds: {{ . }}
    {{- end }}
    # Written out: where the field goes, the API server keeps the account of before (kubernetes#72519).
    serviceAccountName: {{ .serviceAccountName | default "default" | quote }}
    automountServiceAccountToken: false
    enableServiceLinks: false
    {{- with $values.imagePullSecrets }}
    imagePullSecrets:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    securityContext:
      {{- include "weightlift.podSecurityContext" .root | nindent 6 }}
    {{- with $values.download.nodeSelector }}
    nodeSelector:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with include "weightlift.jobTolerations" .root }}
    tolerations:
      {{- . | nindent 6 }}
    {{- end }}
    {{- with include "weightlift.affinity" (dict "root" .root "affinity" $values.download.affinity) }}
    affinity:
      {{- . | nindent 6 }}
    {{- end }}
    containers:
      {{- .container | nindent 6 }}
    volumes:
      {{- .volumes | nindent 6 }}
{{- end }}

{{- /* Takes root, component, name, schedule, spec (YAML) and, if it may be, suspend. */}}
{{- define "weightlift.cronJob" -}}
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {{ .name | quote }}
  namespace: {{ .root.Release.Namespace | quote }}
  labels:
    {{- include "weightlift.jobLabels" . | nindent 4 }}
spec:
  schedule: {{ .schedule | quote }}
  {{- if hasKey . "suspend" }}
  suspend: {{ .suspend }}
  {{- end }}
  concurrencyPolicy: Forbid
  jobTemplate:
    metadata:
      labels:
        {{- include "weightlift.podLabels" . | nindent 8 }}
    spec:
      {{- .spec | nindent 6 }}
{{- end }}

{{- /* The spec of the Job that fetches. Takes root and model. */}}
{{- define "weightlift.downloadSpec" -}}
{{- $download := .root.Values.download -}}
{{- $container := include "weightlift.fetchContainer" . -}}
{{- $volumes := include "weightlift.volumes" (dict "root" .root "fetch" true) -}}
{{- $account := include "weightlift.serviceAccountName" .root -}}
{{- $job := dict "root" .root "component" "download" "backoffLimit" $download.backoffLimit "container" $container "volumes" $volumes "serviceAccountName" $account -}}
{{- $job = merge $job (dict "podAnnotations" $download.podAnnotations "podLabels" $download.podLabels) -}}
{{- $_ := set $job "ttlSecondsAfterFinished" ($download.ttlSecondsAfterFinished | int64 | toString) -}}
{{- $_ := set $job "activeDeadlineSeconds" ($download.activeDeadlineSeconds | int64) -}}
{{- include "weightlift.job" $job -}}
{{- end }}

{{- /*
A Job cannot be changed, so its name has a checksum of all that it is: another image, model or flag is another
Job. A CronJob can be changed. Takes root, model, models and spec.
*/}}
{{- define "weightlift.downloadName" -}}
{{- $download := .root.Values.download -}}
{{- $slug := include "weightlift.slug" .model.dest -}}
{{- $name := printf "%s-%s" (include "weightlift.fullname" .root) $slug -}}
{{- $checksum := .model.dest | sha256sum | trunc 8 -}}
{{- if $download.name -}}
{{- $name = $download.name -}}
{{- if gt (len .models) 1 }}{{ $name = printf "%s-%s" $name $slug }}{{ end -}}
{{- /* Two that are cut must not become one. */ -}}
{{- $checksum = ternary $checksum "" (gt (len $name) 52) -}}
{{- end -}}
{{- if eq $download.kind "job" }}{{ $checksum = .spec | sha256sum | trunc 8 }}{{ end -}}
{{- with $checksum }}{{ $name = printf "%s-%s" ($name | trunc 43 | trimAll "-") . }}{{ end -}}
{{- $name -}}
{{- end }}

{{- /* JSON: what is fetched ahead of time, each with name, dest and spec. */}}
{{- define "weightlift.downloads" -}}
{{- $root := . -}}
{{- $downloads := list -}}
{{- if ne .Values.download.kind "none" -}}
{{- $models := .Values.models -}}
{{- if include "weightlift.list" . }}{{ $models = list (dict "dest" "models") }}{{ end -}}
{{- range $models -}}
{{- $spec := include "weightlift.downloadSpec" (dict "root" $root "model" .) -}}
{{- $name := include "weightlift.downloadName" (dict "root" $root "model" . "models" $models "spec" $spec) -}}
{{- $downloads = append $downloads (dict "name" $name "dest" .dest "spec" $spec) -}}
{{- end -}}
{{- end -}}
{{- $downloads | toJson -}}
{{- end }}
