"""Static files with hashed names; import statements inside ES modules are rewritten to the hashed ones."""

from whitenoise.storage import CompressedManifestStaticFilesStorage


class ModuleManifestStorage(CompressedManifestStaticFilesStorage):  # type: ignore[misc]  # whitenoise is untyped
    support_js_module_import_aggregation = True
    # A page whose asset is missing should say so in tests, not fail for a user.
    manifest_strict = False
