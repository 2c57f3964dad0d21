-- Health of a PartitionPolicy, PartitionArchive or PartitionRestore for Argo CD, by the conditions that kstatus reads.
-- Of a table that is covered while something of its policy is stuck: "Healthy", or "Degraded".
local with_warnings = "Healthy"
local health = {status = "Progressing", message = "the operator has not reconciled it yet"}
if obj.status == nil or obj.status.conditions == nil then
  return health
end
local found = {}
for _, condition in ipairs(obj.status.conditions) do
  found[condition.type] = condition
end
local ready = found["Ready"]
if ready == nil then
  return health
end
health.message = ready.reason .. ": " .. (ready.message or "")
if obj.status.observedGeneration ~= nil and obj.status.observedGeneration ~= obj.metadata.generation then
  health.message = "the operator has not reconciled the last edit yet"
elseif found["Stalled"] ~= nil and found["Stalled"].status == "True" then
  health.status = "Degraded"
elseif found["Reconciling"] ~= nil and found["Reconciling"].status == "True" then
  health.status = "Progressing"
elseif ready.reason == "ConvergedWithWarnings" then
  health.status = with_warnings
elseif ready.status == "True" then
  health.status = "Healthy"
else
  -- Neither reconciling nor failed: spec.suspend is set, or spec.mode is Plan and there are steps, or a plan waits for approval.
  health.status = "Suspended"
end
return health
