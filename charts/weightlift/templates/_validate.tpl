{{- /* What the schema cannot say: values that do not fit each other. */}}
{{- define "weightlift.validate" -}}
{{- if and .Values.prune.enabled (include "weightlift.readOnly" .) }}{{ fail "prune.enabled: nothing can be removed from a volume that is read-only" }}{{ end -}}
{{- $list := include "weightlift.list" . -}}
{{- if not (or .Values.models $list) }}{{ fail "models is empty: name at least one, with source and dest, or give modelsFile or modelsLock" }}{{ end -}}
{{- if and .Values.models $list }}{{ fail "models is given together with modelsFile or modelsLock: give one of them" }}{{ end -}}
{{- if and .Values.modelsFile .Values.modelsLock (not .Values.prune.unlisted) }}{{ fail "modelsFile is given together with modelsLock, which alone says what to fetch: leave modelsFile out, or set prune.unlisted" }}{{ end -}}
{{- if and .Values.prune.unlisted (not .Values.modelsFile) }}{{ fail "prune.unlisted needs modelsFile: it says which models stay" }}{{ end -}}
{{- range $key, $parsed := dict "modelsLock" (fromJson (.Values.modelsLock | default "{}")) "modelsFile" (fromYaml .Values.modelsFile) -}}
{{- if hasKey $parsed "Error" }}{{ fail (printf "%s cannot be read: %s" $key (get $parsed "Error")) }}{{ end -}}
{{- if and (get $.Values $key) (not (get $parsed "models")) }}{{ fail (printf "%s names no models" $key) }}{{ end -}}
{{- end -}}
{{- range (fromYaml .Values.modelsFile).models -}}
{{- if and .expect (not (kindIs "string" .expect)) }}{{ fail (printf "modelsFile: write the `expect` of `%s` in quotes: YAML reads it as a number" (.name | default .source)) }}{{ end -}}
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
{{- if and (eq .mode "rox") (not .dataSource) }}{{ fail "storage.mode rox needs storage.dataSource: a volume that no pod can write must be filled before" }}{{ end -}}
{{- if and .dataSource (ne .mode "rox") }}{{ fail "storage.dataSource is for storage.mode rox" }}{{ end -}}
{{- if and (or .hostPath.path .hostPath.nodes) (not (has .mode (list "hostPath" "local"))) }}{{ fail "storage.hostPath is for storage.mode hostPath and local" }}{{ end -}}
{{- if and (has .mode (list "hostPath" "local")) (not .hostPath.path) }}{{ fail (printf "storage.mode %s needs storage.hostPath.path" .mode) }}{{ end -}}
{{- if and (has .mode (list "hostPath" "local")) (not .hostPath.nodes) }}{{ fail (printf "storage.mode %s needs storage.hostPath.nodes: elsewhere the directory is another one" .mode) }}{{ end -}}
{{- end -}}
{{- if eq .Values.storage.mode "emptyDir" -}}
{{- if not .Values.server.enabled }}{{ fail "storage.mode emptyDir needs server.enabled: the volume is the server's own, and goes with its pod" }}{{ end -}}
{{- if ne .Values.download.kind "none" }}{{ fail "storage.mode emptyDir needs download.kind none: a Job cannot fill the volume of another pod" }}{{ end -}}
{{- if .Values.server.waitOnly }}{{ fail "storage.mode emptyDir needs server.waitOnly false: no other pod can fill the volume" }}{{ end -}}
{{- range $key := list "prune" "verify" -}}
{{- if (get $.Values $key).enabled }}{{ fail (printf "%s.enabled: storage.mode emptyDir has no volume that another pod can mount" $key) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.verify.enabled (contains "${" (include "weightlift.revisions" . | fromJson | keys | join " ")) -}}
{{- fail "verify.enabled: modelsFile names a model by a variable, which is not known here: write the name" -}}
{{- end -}}
{{- if and .Values.serviceAccount.annotations (not (include "weightlift.serviceAccountIsOurs" .)) -}}
{{- fail "serviceAccount.annotations are for an account that is made here: set serviceAccount.create to true, or annotate your own" -}}
{{- end -}}
{{- if and (include "weightlift.readOnly" .) (include "weightlift.fetches" .) -}}
{{- fail "the volume is read-only: set download.kind to none and server.waitOnly to true" -}}
{{- end -}}
{{- end }}
