{{- /* A release's name may have dots, a Service's may not. */}}
{{- define "weightlift.fullname" -}}
{{- $name := .Release.Name -}}
{{- if not (contains .Chart.Name $name) }}{{ $name = printf "%s-%s" $name .Chart.Name }}{{ end -}}
{{- $name | replace "." "-" | trunc 40 | trimAll "-" -}}
{{- end }}

{{- define "weightlift.helmLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
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

{{- /* The revision that a SOURCE names, empty for a branch, a tag or a place of files. As the sentinel has it. */}}
{{- define "weightlift.pin" -}}
{{- $source := . -}}
{{- range $scheme, $pattern := dict "hf" "[@:][0-9a-fA-F]{40}$" "ms" "[@][0-9a-fA-F]{40}$" "oci" "[@]sha256:[0-9a-fA-F]{64}$" "https" "#sha256=[0-9a-fA-F]{64}$" "http" "#sha256=[0-9a-fA-F]{64}$" -}}
{{- if hasPrefix (printf "%s://" $scheme) $source -}}
{{- regexFind $pattern $source | regexFind "(sha256:)?[0-9a-fA-F]+$" | lower -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- /* The name that weightlift gives to a model of a models file that has none. */}}
{{- define "weightlift.defaultName" -}}
{{- $rest := regexReplaceAll "^[a-z0-9]+://" . "" -}}
{{- if or (hasPrefix "hf://" .) (hasPrefix "ms://" .) }}{{ $rest = regexReplaceAll "[@:].*$" $rest "" }}{{ end -}}
{{- if hasPrefix "oci://" . }}{{ $rest = regexReplaceAll "(:[^:/@]*)?(@sha256:[0-9a-fA-F]*)?$" $rest "" }}{{ end -}}
{{- if or (hasPrefix "https://" .) (hasPrefix "http://" .) }}{{ $rest = regexReplaceAll "#.*$" $rest "" }}{{ end -}}
{{- $rest | base | lower -}}
{{- end }}

{{- /* JSON: each DEST with the revision that it is pinned to, empty for a branch. */}}
{{- define "weightlift.revisions" -}}
{{- $revisions := dict -}}
{{- range .Values.models -}}
{{- $_ := set $revisions .dest (.expectRevision | default (include "weightlift.pin" .source)) -}}
{{- end -}}
{{- range (fromJson (.Values.modelsLock | default "{}")).models -}}
{{- $_ := set $revisions .name .revision -}}
{{- end -}}
{{- if not .Values.modelsLock -}}
{{- range (fromYaml .Values.modelsFile).models -}}
{{- $source := .source | toString -}}
{{- $name := .name | default (include "weightlift.defaultName" $source) | toString -}}
{{- $_ := set $revisions $name (.expect | default (include "weightlift.pin" $source)) -}}
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

{{- /* "true" if no pod can write to the volume. */}}
{{- define "weightlift.readOnly" -}}
{{- if or (eq .Values.storage.mode "rox") (and (eq .Values.storage.mode "existingClaim") .Values.storage.readOnly) -}}
true
{{- end -}}
{{- end }}

{{- /* For people: each model, its source and its commit. */}}
{{- define "weightlift.table" -}}
{{- $rows := list -}}
{{- $sources := dict -}}
{{- range .Values.models }}{{ $_ := set $sources .dest .source }}{{ end -}}
{{- $list := include "weightlift.list" . -}}
{{- $file := .Values.modelsFile | fromYaml -}}
{{- if eq $list "models.lock" }}{{ $file = .Values.modelsLock | fromJson }}{{ end -}}
{{- if $list -}}
{{- range $file.models -}}
{{- $_ := set $sources (.name | default (include "weightlift.defaultName" (.source | toString)) | toString) .source -}}
{{- end -}}
{{- end -}}
{{- $revisions := include "weightlift.revisions" . | fromJson -}}
{{- $width := 0 -}}
{{- range keys $sources }}{{ $width = max $width (len .) }}{{ end -}}
{{- range $name := keys $sources | sortAlpha -}}
{{- $source := get $sources $name | toString -}}
{{- $revision := get $revisions $name -}}
{{- $shown := regexReplaceAll "[@:](sha256:)?[0-9a-fA-F]{40,64}$|#sha256=.*$" $source "" -}}
{{- with $revision }}{{ $shown = printf "%s at %s" $shown (trimPrefix "sha256:" . | trunc 12) }}{{ end -}}
{{- $rows = append $rows (printf "  %-*s  %s" (int $width) $name $shown) -}}
{{- end -}}
{{- join "\n" $rows -}}
{{- end }}
