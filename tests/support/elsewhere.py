"""What of the tests says something of one server alone, and why; on a cluster it is expected to fail."""

WHY: dict[str, tuple[str, ...]] = {
    "no hold can be placed": ("audit/test_holds.py", "cli/test_holding.py"),
    "a spread history cannot be opened": (
        "audit/test_history.py::test_a_forged_size_takes_no_memory",
        "audit/test_history.py::test_maintenance_changes_history_and_leaves_an_entry",
        "audit/test_history.py::test_the_owner_cannot_change_history",
        "audit/test_maintenance.py",
        "sql/test_grants.py::test_owners_may",
        "sql/test_replays.py::test_only_the_switch_opens_the_history",
    ),
    "it tampers by a statement that Citus refuses": (
        "audit/test_chain.py::test_a_changed_column_is_noticed",
        "audit/test_coverage.py::test_a_payload_that_is_gone_elsewhere_is_found",
        "audit/test_coverage.py::test_a_storage_that_is_known_and_empty_is_altered",
        "audit/test_coverage.py::test_nothing_is_not_intact",
        "audit/test_coverage.py::test_who_is_about_to_write_for_the_first_time_has_lost_nothing",
        "audit/test_hostile.py",
        "audit/test_log.py::test_pages_end_between_entries_of_one_moment",
        "audit/test_tampering.py",
        "audit/test_verify.py::test_a_history_without_its_guard_is_reported",
        "audit/test_verify.py::test_tampering_is_found_and_located",
        "cli/test_log.py::test_what_is_old_is_found_too",
        "records/test_identity.py::test_the_identity_is_read_once",
        "sql/test_replays.py::test_sizes_beyond_measure_end_no_question",
        "store/test_expiration.py::test_a_result_lives_until_it_expires",
    ),
    "functions take the place of the trigger that it is about": (
        "sql/test_entries.py",
        "sql/test_functions.py::test_what_is_on_a_writers_path_is_not_run_as_the_owner",
        "sql/test_functions.py::test_who_may_run_what",
        "sql/test_replays.py::test_a_signed_version_is_not_stored_again_once_its_payload_is_gone",
        "sql/test_replays.py::test_no_writer_says_anything_at_the_place_of_the_switch",
        "sql/test_replays.py::test_who_began_before_a_result_expired_does_not_revive_it",
        "sql/test_roles.py::test_the_documented_table_is_what_the_server_does",
    ),
    "what surrounds the history is not compared": ("audit/test_house.py", "audit/test_house_set_ups.py"),
    "it reads plans, statistics or files of one server": (
        "audit/test_erasure.py::test_what_was_redacted_leaves_nothing_in_the_tables",
        "sql/test_growth.py::test_a_monitoring_goes_through_no_table",
        "sql/test_growth.py::test_history_by_time_is_read_from_its_end",
        "sql/test_growth.py::test_what_is_frequent_is_known_of_every_tag",
        "sql/test_statements.py",
        "sql/test_views.py::test_a_scan_would_be_seen",
        "sql/test_views.py::test_the_documented_queries_use_an_index",
        "sql/test_views.py::test_the_hot_queries_use_their_index",
    ),
    "each server counts its own transactions": (
        "audit/test_seals.py::test_a_seal_counts_what_it_cannot_cover",
        "audit/test_seals.py::test_the_program_says_what_a_seal_cannot_cover",
        "tasks/test_store_within.py::test_calls_of_an_async_task_are_stored_together",
        "tasks/test_store_within.py::test_many_do_not_wait",
        "tasks/test_store_within.py::test_they_are_stored_together",
        "tasks/test_store_within.py::test_what_belongs_together_waits_together",
    ),
    "no documents are projected": (
        "sql/test_functions.py::test_what_is_shown_of_documents_is_not_rewritten_from_elsewhere",
        "sql/test_grants.py::test_a_temporary_table_makes_nobody_an_owner",
        "sql/test_views.py::test_json_results_are_projected_where_that_is_wanted",
    ),
    "who reads what is current may read all payloads": (
        "sql/test_grants.py::test_a_reader_sees_no_payload_that_is_not_current",
        "sql/test_grants.py::test_payloads_are_read_where_a_role_may_see_them",
        "sql/test_grants.py::test_who_may_no_longer_see_the_payloads_reads_what_is_current",
    ),
    "no row is kept from a writer of the tables": ("sql/test_grants.py::test_a_writer_may_be_confined_to_one_storage",),
    "it says what is printed of one server": (
        "cli/test_program.py::TestProcesses::test_a_schema",
        "cli/test_storages.py::test_no_schema_is_made_on_an_embedded_server_but_when_asked_for",
    ),
    "statements that are printed for one server are not for a cluster": (
        "cli/test_database.py::TestUpgradesBySql",
        "cli/test_database.py::TestDatabase::test_a_kind_is_the_same_whoever_grants_it",
        "cli/test_database.py::TestDatabase::test_a_reader_only_reads",
        "cli/test_database.py::TestDatabase::test_a_writer_writes_and_cannot_rewrite",
        "cli/test_database.py::TestDatabase::test_what_is_lacking_is_named",
        "sql/test_functions.py::test_the_printed_statements_close_them_as_well",
    ),
}
"""By reason, the files, classes and tests of `tests`; some of those of a file or of their parameters pass."""


def why(test: str) -> str | None:
    """Why a test, named from `tests` on, need not pass on a cluster; None where it has to."""
    for reason, places in WHY.items():
        if any(test == place or test.startswith((f"{place}::", f"{place}[")) for place in places):
            return reason
    return None
