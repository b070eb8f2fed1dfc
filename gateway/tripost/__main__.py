"""python -m tripost; with `--role` first, one of the processes of `processes = n`, which loads only what it needs"""

import sys


def main() -> int:
    if sys.argv[1:3] == ["--role", "delivery"]:
        from tripost.delivery.processes.role import main as deliver

        return deliver(sys.argv[3:])
    if sys.argv[1:3] == ["--role", "ingress"]:
        from tripost.gateway.processes.ingress_role import main as take_in

        return take_in(sys.argv[3])
    if sys.argv[1:3] == ["--role", "manager"]:
        from tripost.gateway.processes.manager_role import main as manage

        return manage(sys.argv[3])
    from tripost.gateway.cli import main as command

    return command()


if __name__ == "__main__":
    raise SystemExit(main())
