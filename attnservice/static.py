"""Static files with hashed names; import statements inside ES modules are rewritten to the hashed ones."""

from whitenoise.storage import CompressedManifestStaticFilesStorage


class ModuleManifestStorage(CompressedManifestStaticFilesStorage):  # type: ignore[misc]  # whitenoise is untyped
    support_js_module_import_aggregation = True
    # A missing asset fails tests, not a user's page.
    manifest_strict = False
