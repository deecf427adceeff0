"""Writes the secrets that docker-compose.yml mounts: random, and left alone where they exist."""

import secrets
import sys
from pathlib import Path


def main(folder: Path) -> None:
    """The folder is ours alone; the files are readable, because Compose hands them on with their own mode to
    containers that do not run as us."""
    folder.mkdir(mode=0o700, exist_ok=True)
    postgres, redis = (keep(folder / name, secrets.token_hex(24)) for name in ("postgres_password", "redis_password"))
    keep(folder / "database_url", f"postgres://attn:{postgres}@postgres:5432/attn")
    keep(folder / "redis_url", f"redis://:{redis}@redis:6379/0")
    keep(folder / "secret_key", secrets.token_urlsafe(50))
    keep(folder / "admin_password", secrets.token_urlsafe(12))


def keep(path: Path, value: str) -> str:
    if path.exists():
        return path.read_text().strip()
    path.write_text(value + "\n")
    path.chmod(0o644)
    return value


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "secrets"))
