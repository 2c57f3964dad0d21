{{- define "partwarden.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "partwarden.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "partwarden.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "partwarden.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "partwarden.selector" -}}
app.kubernetes.io/name: {{ include "partwarden.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "partwarden.labels" -}}
{{ include "partwarden.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "partwarden.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "partwarden.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "partwarden.image" -}}
{{- $repository := required "image.repository is not set: no image of Partwarden is known that your cluster can pull; build one with the Dockerfile of the project, push it, and add --set image.repository=registry.example.com/partwarden" .Values.image.repository -}}
{{- $suffix := empty .Values.image.variant | ternary "" (printf "-%s" .Values.image.variant) -}}
{{- if .Values.image.digest -}}
{{- if $suffix -}}
{{- fail (printf "image.variant is %s, and image.digest names one image, whichever that is: leave image.variant empty, and give the digest of the image whose tag ends in %s" .Values.image.variant $suffix) -}}
{{- end -}}
{{- printf "%s@%s" $repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s%s" $repository (default .Chart.AppVersion .Values.image.tag) $suffix -}}
{{- end -}}
{{- end -}}

{{/* The page to which runbook_url of the alerts leads. Only a published chart knows its repository. */}}
{{- define "partwarden.runbooks" -}}
{{- $page := "docs/how-to/monitor.md" -}}
{{- if .Values.monitoring.prometheusRule.runbooks -}}
{{- .Values.monitoring.prometheusRule.runbooks -}}
{{- else if .Chart.Home -}}
{{- printf "%s/blob/v%s/%s" (trimSuffix "/" .Chart.Home) .Chart.AppVersion $page -}}
{{- else -}}
{{- fail (printf "monitoring.prometheusRule.runbooks is not set, and this chart was not published from a repository that it knows: set it to the address of %s, such as https://git.example.com/partwarden/%s" $page $page) -}}
{{- end -}}
{{- end -}}

{{/* What the operator may do, and no more; examples/rbac.yaml has the same. */}}
{{- define "partwarden.rules" -}}
- apiGroups: [partwarden.dev]
  resources: [partitionpolicies]
  verbs: [list, watch]
- apiGroups: [partwarden.dev]
  resources: [partitionarchives]
  verbs: [get, list, watch, create]
- apiGroups: [partwarden.dev]
  resources: [partitionrestores]
  verbs: [get, list, watch]
- apiGroups: [partwarden.dev]
  resources: [partitionpolicies/status, partitionarchives/status, partitionrestores/status]
  verbs: [patch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create]
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
# The capacity of a claim that archives go to: without this right no forecast says when it is full.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get]
- apiGroups: [""]
  resources: [secrets]
  {{- with .Values.rbac.secretNames }}
  resourceNames: {{ toJson . }}
  {{- end }}
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end -}}

{{- define "partwarden.env" -}}
- name: PARTWARDEN_NAMESPACES
  value: {{ join "," .Values.scope.namespaces | quote }}
- name: PARTWARDEN_SELECTOR
  value: {{ .Values.scope.selector | quote }}
- name: PARTWARDEN_SECRETS
  value: {{ join "," .Values.rbac.secretNames | quote }}
- name: PARTWARDEN_WORKERS
  value: {{ .Values.operator.workers | quote }}
- name: PARTWARDEN_CONNECT_TIMEOUT
  value: {{ .Values.operator.connectTimeout | quote }}
- name: PARTWARDEN_LOCK_PATIENCE
  value: {{ .Values.operator.lockPatience | quote }}
- name: PARTWARDEN_RECONCILE_TIMEOUT
  value: {{ .Values.operator.reconcileTimeout | quote }}
- name: PARTWARDEN_WORKER_MEMORY
  value: {{ int .Values.operator.workerMemory | quote }}
- name: PARTWARDEN_RELIST
  value: {{ .Values.operator.relist | quote }}
- name: PARTWARDEN_CA_FOLDER
  value: {{ .Values.operator.caFolder | quote }}
- name: PARTWARDEN_LOG_FORMAT
  value: {{ .Values.operator.logFormat | quote }}
- name: PARTWARDEN_LOG_LEVEL
  value: {{ .Values.operator.logLevel | quote }}
- name: PARTWARDEN_JOB_IMAGE
  value: {{ include "partwarden.image" . | quote }}
- name: PARTWARDEN_JOBS
  value: {{ .Values.jobs.max | quote }}
- name: PARTWARDEN_JOB_DEADLINE
  value: {{ int .Values.jobs.deadline | quote }}
- name: PARTWARDEN_JOB_RETRIES
  value: {{ .Values.jobs.retries | quote }}
- name: PARTWARDEN_JOB_SERVICE_ACCOUNT
  value: {{ .Values.jobs.serviceAccount | quote }}
- name: PARTWARDEN_JOB_PULL_SECRETS
  value: {{ join "," .Values.jobs.pullSecrets | quote }}
- name: PARTWARDEN_JOB_ENV
  value: {{ toJson .Values.jobs.env | quote }}
- name: PARTWARDEN_LEASE
  value: {{ printf "%s/%s" .Release.Namespace (include "partwarden.fullname" .) | quote }}
- name: PARTWARDEN_LISTEN
  value: ":8080"
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The restricted Pod Security Standard. The image says its user by number. */}}
{{- define "partwarden.podSecurity" -}}
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "partwarden.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
{{- end -}}
