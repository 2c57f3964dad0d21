"""Commands and manifests of the pages that need more than a shell beside an operator, and the tests that run them."""

from partwarden.postgres.settings import as_options

HELM = "helm install partwarden charts/partwarden --namespace partwarden --create-namespace"
IMAGE = "--set image.repository=registry.example.com/partwarden"
CHART = "tests/e2e/test_chart_installed.py::test_a_user_with_rights_in_one_namespace_uses_the_chart"
UPGRADE = "tests/e2e/test_chart_installed.py::test_an_upgrade_brings_new_resources_and_uninstalling_keeps_policies"
DEMO = "tests/e2e/test_demo.py::test_the_demo_runs_to_its_end"
LAYOUT = "tests/e2e/test_image.py::test_the_image_holds_what_it_needs_and_no_more"
COURSE = (
    "tests/cluster/test_archived_retention.py::"
    "test_an_expired_partition_is_archived_proven_detached_approved_checked_and_dropped"
)
SHARDS = "tests/e2e/test_chart.py::test_shards_in_one_namespace_have_nothing_in_common"
START = "tests/cluster/test_startup_and_shutdown.py"
PLAN = "tests/cluster/test_plan_approval.py::test_a_plan_waits_until_it_is_approved_and_another_waits_again"
PLAIN = "tests/postgres/test_plain_pg_restore.py"
RESTORE = "tests/unit/cli/test_partition_restore.py::test_one_restore_is_made_for_the_archive_of_the_period"
CONVERT = "tests/postgres/test_convert_command.py::test_a_table_is_converted_is_kept_by_a_policy_and_made_plain_again"
RESTORED_ONCE = "tests/cluster/test_restores.py::test_an_archive_is_restored_once_and_its_table_stays"
TYPED = "tests/postgres/test_drop_command.py::test_a_drop_is_confirmed_by_typing_the_name"

DUCKDB = (
    "duckdb -c \"SELECT year, count(*) AS runs FROM read_parquet('archives/**/*.parquet', hive_partitioning = true) "
    'GROUP BY ALL"'
)

SHOWN = {
    "kubectl get events --watch-only --field-selector reportingComponent=partwarden.dev/partwarden": DEMO,
    "kubectl apply -f examples/partition-restore.yaml": DEMO,
    "kubectl get prst": DEMO,
}

ELSEWHERE: dict[str, dict[str, str]] = {
    "README.md": {
        "make demo # a cluster, a database, a policy applied; old years archived, proven and dropped, "
        "queried, one restored": DEMO,
        # CI runs it.
        "make test # everything, on real parts": "tests/unit/repository/test_docs.py::test_every_make_target_exists",
        f"{HELM} {IMAGE}": CHART,
        DUCKDB: DEMO,
        **SHOWN,
    },
    "docs/how-to/install.md": {
        f"{HELM} {IMAGE}": CHART,
        "kubectl apply --server-side -f crds/": f"{START}::test_the_command_in_the_message_installs_the_resource",
        "kubectl apply -f examples/rbac.yaml": f"{START}::test_the_rights_of_the_example_are_enough_for_all_namespaces",
        "partwarden run": f"{START}::test_the_rights_of_the_example_are_enough_for_all_namespaces",
        "docker build --tag partwarden . # or: buildah build --tag partwarden .": LAYOUT,
        "docker run --rm partwarden version": "tests/e2e/test_image.py::test_the_image_runs_with_a_read_only_root",
    },
    "docs/how-to/convert.md": {
        'partwarden convert --dsn "$DSN" --table run --key submitted_at --interval Month --widen-keys --plan': CONVERT,
        'partwarden convert --dsn "$DSN" --table run --undo': CONVERT,
    },
    "docs/how-to/uninstall.md": {
        "helm uninstall partwarden --namespace partwarden": UPGRADE,
        "kubectl delete crd/partitionpolicies.partwarden.dev crd/partitionarchives.partwarden.dev "
        "crd/partitionrestores.partwarden.dev": UPGRADE,
    },
    "charts/partwarden/README.md": {
        f"{HELM} {IMAGE}": CHART,
        "helm test partwarden --namespace partwarden": CHART,
        "helm upgrade partwarden charts/partwarden --namespace partwarden": UPGRADE,
        "helm uninstall partwarden --namespace partwarden": UPGRADE,
        "helm install shard-a charts/partwarden --set scope.selector='shard=a' …": SHARDS,
        "helm install shard-b charts/partwarden --set scope.selector='shard=b' "
        "--set crds.install=false,rbac.aggregate=false …": SHARDS,
        "helm install shard-rest charts/partwarden --set scope.selector='shard notin (a\\, b)' "
        "--set crds.install=false,rbac.aggregate=false …": SHARDS,
    },
    "docs/how-to/archive.md": {
        **SHOWN,
        "kubectl get parc": DEMO,
        "kubectl wait --for=condition=Verified parc/run-2019": DEMO,
        "kubectl annotate ppol run partwarden.dev/approve-drop=run_2019 --overwrite": COURSE,
        "kubectl wait ppol/run "
        """'--for=jsonpath={.status.conditions[?(@.type=="ArchivesHealthy")].reason}=NothingWaits'""": DEMO,
        "kubectl describe ppol run": DEMO,
    },
    "docs/how-to/query-archives.md": {
        "helm upgrade partwarden charts/partwarden --namespace partwarden --reuse-values --set image.variant=parquet": (
            "tests/e2e/test_chart.py::test_the_variant_is_in_the_tag_of_the_operator_and_of_its_jobs"
        ),
        "kubectl cp archive-reader:/archives archives": DEMO,
        DUCKDB: DEMO,
    },
    "docs/how-to/argocd.md": {
        "kubectl get configmap partwarden-argocd --namespace partwarden --output "
        """jsonpath='{"{\\"data\\":"}{.data}{"}"}' |""": (
            "tests/e2e/test_chart.py::test_the_health_checks_can_be_patched_into_argocds_configmap_as_the_docs_say"
        ),
    },
    "docs/how-to/approve.md": {
        "kubectl partwarden approve run --yes 3f1c2a9d2e6b1047": PLAN,
        "kubectl annotate ppol run partwarden.dev/approve-plan-": PLAN,
        "kubectl partwarden plan -f edited.yaml run": PLAN,
    },
    "docs/how-to/commands.md": {
        'partwarden archive --dsn "$DSN" --partition run_2020 --to "$ARCHIVES"': TYPED,
        'partwarden drop 2020 --dsn "$DSN" --archive "$ARCHIVES/orchestrator/public.run/run_2020/'
        '20261126T093000Z-4f1c2a-9d2e6b10"': TYPED,
    },
    "docs/how-to/restore.md": {
        "kubectl partwarden restore 2019 run --as run_2019_again --expire-after 14d": RESTORE,
        "kubectl partwarden restore 2019 run --attach": RESTORE,
        "kubectl get prst": DEMO,
        "kubectl wait --for=condition=Restored prst/run-2019-again": DEMO,
        """kubectl patch prst run-2019-again --type merge -p '{"spec":{"expireAfter":"30d"}}'""": RESTORED_ONCE,
        "kubectl annotate prst run-2019-again partwarden.dev/hold=needed": RESTORED_ONCE,
        f"export PGOPTIONS='{as_options()}'": f"{PLAIN}::test_the_page_and_the_manifest_name_the_pinned_settings",
        'pg_restore --no-owner --dbname "$DSN" "${ARCHIVE#file://}/data.dump"': (
            f"{PLAIN}::test_it_gives_the_rows_and_the_indexes_but_no_attach_and_computes_what_is_generated"
        ),
        'gunzip --stdout "${ARCHIVE#file://}/generated.copy.gz" | head -3': (
            f"{PLAIN}::test_the_values_of_generated_columns_are_beside_it"
        ),
    },
    "docs/how-to/from-a-script.md": {
        "kubectl partwarden drop 2020 run": "tests/cluster/test_commands.py::test_drop_writes_the_approval_annotation",
    },
}
"""By page: a line, and the test that does what it says."""

MANIFESTS: dict[str, str] = {
    "charts/partwarden/README.md": "tests/e2e/test_chart.py::test_the_api_server_takes_all_of_it",
    "docs/how-to/argocd.md": (
        "tests/unit/repository/test_argocd.py::test_the_page_shows_this_very_check_and_applications_in_order"
    ),
}
"""Pages whose YAML is of other kinds, and the test that reads it."""
