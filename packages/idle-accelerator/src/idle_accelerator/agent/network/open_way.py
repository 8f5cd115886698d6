PROGRAM = "slirp4netns"


def check() -> None: ...


class OpenWay: ...
