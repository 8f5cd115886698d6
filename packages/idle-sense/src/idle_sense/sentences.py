"""Every reason code of this library with its sentence, English and Chinese, and how parameters are made human.

A parameter's name carries its unit: ``_s`` seconds, ``_bytes``, ``_bytes_per_s``, ``_ratio`` (0 to 1), ``_c`` degrees Celsius.
"""

from collections.abc import Mapping

ENGLISH: dict[str, str] = {
    # hard: at once
    "input.recent": "in use (key or mouse {age_s} ago on {seat}); lent after {limit_s} without input",
    "terminal.recent": "in use (key pressed {age_s} ago in terminal {terminal}); lent after {limit_s} without input",
    "session.changed": "a desktop session began or ended {age_s} ago; lent after {limit_s} without input",
    "session.began": "somebody logged in {age_s} ago ({session}); lent after {limit_s} without input",
    "session.ended": "somebody logged out {age_s} ago ({session}); lent after {limit_s} without input",
    "session.unlocked": "somebody unlocked the screen {age_s} ago ({session}); lent after {limit_s} without input",
    "session.woke": "woke from sleep {age_s} ago; lent after {limit_s} without input",
    "call.microphone": "in a call: {program} listens to the microphone; lent when it ends",
    "call.camera": "in a call: {program} looks through the camera; lent when it ends",
    "call.ended": "a call ended {age_s} ago; lent after {limit_s} without input",
    "pause.set": "paused by its owner; lent when they resume it",
    "pause.timed": "paused by its owner for another {remaining_s}",
    "probe.missing": "counts as in use: {probe} cannot be read ({problem}); {advice}",
    "probe.stale": "counts as in use: {probe} was last read {age_s} ago, more than {limit_s} ({problem}); {advice}",
    # soft: two thresholds and a latch
    "load.cpu": "other programs use {used_ratio} of the processors; lent when their average over {calm_s} is below {limit_ratio}",
    "load.gpu": "other programs use {used_ratio} of {gpu}; lent when their average over {calm_s} is below {limit_ratio}",
    "load.disk": "other programs move {used_bytes_per_s} from and to disks; lent when their average over {calm_s} is below {limit_bytes_per_s}",
    "load.network": "other programs move {used_bytes_per_s} over the network; lent when their average over {calm_s} is below {limit_bytes_per_s}",
    "memory.short": "memory is short ({free_bytes} free of {total_bytes}); lent when {limit_ratio} is free",
    "memory.stalled": "programs wait for memory {stalled_ratio} of the time; lent when this is below {limit_ratio}",
    "screen.fullscreen": "a window fills the screen of {seat}; lent when it does no more",
    "media.playing": "{program} plays; lent when it stops",
    "media.inhibitor": "{program} keeps the screen on; lent when it does no more",
    # policy
    "power.battery": "runs on battery; lent when it is plugged in",
    "heat.hot": "hot ({sensor} is at {hottest_c}); lent when it has cooled to {limit_c}",
    "heat.slowed": "the system slows the machine to cool it ({pressure}); lent when it does no more",
    "quiet.hours": "not lent during the quiet hours {hours}",
    "network.metered": "the network costs money (metered); lent on another one",
    # settling
    "settling.grace": "quiet for {age_s}; lent after {limit_s}",
    "settling.measuring": "measuring how busy the processors are; lent after {limit_s} of quiet",
    "settling.unattended": "no keyboard to watch; no terminal has been in use for {age_s}, lent after {limit_s}",
    "settling.pace": "quiet, but it was idle twice in the last {limit_s} already; lent in {remaining_s}",
    # idle
    "idle.input": "idle: no key or mouse for {age_s}",
    "idle.terminal": "idle: no keyboard to watch, and no terminal in use for {age_s}",
    "idle.unattended": "idle: by its policy nobody sits at this machine",
    "idle.load": "other programs use {used_ratio} of the processors",
    # what speaks for idle, in an explanation
    "calm.input": "no key or mouse on {seat} for {age_s} (in use below {limit_s})",
    "calm.no_seat": "there is no display, so no keyboard or mouse to watch",
    "calm.terminal": "no key in any of {count} terminal(s) for {age_s}, the last one in {terminal} (in use below {limit_s})",
    "calm.no_terminal": "no terminal is open",
    "calm.sessions": "nobody logged in or out, or unlocked the screen, in the last {limit_s} (sessions: {count})",
    "calm.calls": "no microphone and no camera is in use",
    "calm.load": "other programs use {used_ratio} of the processors (in use from {limit_ratio} on)",
    "calm.gpu": "other programs use {used_ratio} of {gpu} (in use from {limit_ratio} on)",
    "calm.no_gpu": "there is no graphics processor",
    "calm.disk": "other programs move {used_bytes_per_s} from and to disks (in use from {limit_bytes_per_s} on)",
    "calm.network": "other programs move {used_bytes_per_s} over the network (in use from {limit_bytes_per_s} on)",
    "calm.memory": "{free_bytes} of {total_bytes} of memory are free (short below {limit_ratio})",
    "calm.screen": "no window fills the screen",
    "calm.media": "nothing plays, and no program keeps the screen on",
    "calm.mains": "it runs on mains",
    "calm.no_battery": "it has no battery",
    "calm.heat": "{sensor} is at {hottest_c} (hot from {limit_c} on)",
    "calm.unslowed": "the system does not slow the machine to cool it ({pressure})",
    "calm.hours": "it is outside the quiet hours {hours}",
    "calm.network_kind": "the network costs nothing (not metered)",
    "untold.fact": "nothing on this system tells of {fact}, which decides nothing ({problem})",
    "untold.gpu": "the driver of {gpu} does not tell how much it is used, which decides nothing",
    "unasked.fact": "by policy {policy}, nobody asks for {fact}",
}

CHINESE: dict[str, str] = {
    "input.recent": "正在使用（{seat} 上 {age_s} 前有键盘或鼠标输入）；连续 {limit_s} 无输入后出借",
    "terminal.recent": "正在使用（终端 {terminal} 上 {age_s} 前有按键）；连续 {limit_s} 无输入后出借",
    "session.changed": "{age_s} 前有桌面会话开始或结束；连续 {limit_s} 无输入后出借",
    "session.began": "{age_s} 前有人登录（{session}）；连续 {limit_s} 无输入后出借",
    "session.ended": "{age_s} 前有人注销（{session}）；连续 {limit_s} 无输入后出借",
    "session.unlocked": "{age_s} 前有人解锁了屏幕（{session}）；连续 {limit_s} 无输入后出借",
    "session.woke": "{age_s} 前从睡眠中唤醒；连续 {limit_s} 无输入后出借",
    "call.microphone": "正在通话：{program} 正在使用麦克风；结束后出借",
    "call.camera": "正在通话：{program} 正在使用摄像头；结束后出借",
    "call.ended": "{age_s} 前通话结束；连续 {limit_s} 无输入后出借",
    "pause.set": "被机主暂停；机主恢复后出借",
    "pause.timed": "被机主再暂停 {remaining_s}",
    "probe.missing": "视为正在使用：无法读取 {probe}（{problem}）；{advice}",
    "probe.stale": "视为正在使用：{probe} 最近一次读取是在 {age_s} 前，超过 {limit_s}（{problem}）；{advice}",
    "load.cpu": "其他程序占用 {used_ratio} 的处理器；{calm_s} 内的平均值低于 {limit_ratio} 后出借",
    "load.gpu": "其他程序占用 {gpu} 的 {used_ratio}；{calm_s} 内的平均值低于 {limit_ratio} 后出借",
    "load.disk": "其他程序的磁盘读写为 {used_bytes_per_s}；{calm_s} 内的平均值低于 {limit_bytes_per_s} 后出借",
    "load.network": "其他程序的网络流量为 {used_bytes_per_s}；{calm_s} 内的平均值低于 {limit_bytes_per_s} 后出借",
    "memory.short": "内存不足（共 {total_bytes}，可用 {free_bytes}）；可用 {limit_ratio} 后出借",
    "memory.stalled": "程序有 {stalled_ratio} 的时间在等待内存；低于 {limit_ratio} 后出借",
    "screen.fullscreen": "{seat} 的屏幕上有全屏窗口；退出全屏后出借",
    "media.playing": "{program} 正在播放；停止后出借",
    "media.inhibitor": "{program} 要求屏幕保持常亮；不再要求后出借",
    "power.battery": "正在使用电池；接通电源后出借",
    "heat.hot": "温度过高（{sensor} 为 {hottest_c}）；降到 {limit_c} 后出借",
    "heat.slowed": "系统正在降频散热（{pressure}）；不再降频后出借",
    "quiet.hours": "在静默时段 {hours} 内不出借",
    "network.metered": "当前网络按流量计费；换用其他网络后出借",
    "settling.grace": "已安静 {age_s}；满 {limit_s} 后出借",
    "settling.measuring": "正在测量处理器的忙碌程度；安静 {limit_s} 后出借",
    "settling.unattended": "没有可监视的键盘；已有 {age_s} 没有终端被使用，满 {limit_s} 后出借",
    "settling.pace": "已安静，但在过去 {limit_s} 内已空闲两次；{remaining_s} 后出借",
    "idle.input": "空闲：已有 {age_s} 没有键盘或鼠标输入",
    "idle.terminal": "空闲：没有可监视的键盘，且已有 {age_s} 没有终端被使用",
    "idle.unattended": "空闲：按策略，没有人坐在这台机器前",
    "idle.load": "其他程序占用 {used_ratio} 的处理器",
    "calm.input": "{seat} 上已有 {age_s} 没有键盘或鼠标输入（少于 {limit_s} 视为正在使用）",
    "calm.no_seat": "没有显示器，因此没有可监视的键盘或鼠标",
    "calm.terminal": "{count} 个终端上已有 {age_s} 没有按键，最近一次在 {terminal}（少于 {limit_s} 视为正在使用）",
    "calm.no_terminal": "没有打开的终端",
    "calm.sessions": "过去 {limit_s} 内无人登录、注销或解锁屏幕（会话数：{count}）",
    "calm.calls": "没有使用中的麦克风或摄像头",
    "calm.load": "其他程序占用 {used_ratio} 的处理器（从 {limit_ratio} 起视为正在使用）",
    "calm.gpu": "其他程序占用 {gpu} 的 {used_ratio}（从 {limit_ratio} 起视为正在使用）",
    "calm.no_gpu": "没有图形处理器",
    "calm.disk": "其他程序的磁盘读写为 {used_bytes_per_s}（从 {limit_bytes_per_s} 起视为正在使用）",
    "calm.network": "其他程序的网络流量为 {used_bytes_per_s}（从 {limit_bytes_per_s} 起视为正在使用）",
    "calm.memory": "内存共 {total_bytes}，可用 {free_bytes}（低于 {limit_ratio} 视为不足）",
    "calm.screen": "没有全屏窗口",
    "calm.media": "没有正在播放的媒体，也没有程序要求屏幕保持常亮",
    "calm.mains": "正在使用外接电源",
    "calm.no_battery": "没有电池",
    "calm.heat": "{sensor} 为 {hottest_c}（从 {limit_c} 起视为过热）",
    "calm.unslowed": "系统没有降频散热（{pressure}）",
    "calm.hours": "现在不在静默时段 {hours} 内",
    "calm.network_kind": "当前网络不按流量计费",
    "untold.fact": "本系统无法得知 {fact}，因此不参与判断（{problem}）",
    "untold.gpu": "{gpu} 的驱动程序不报告占用率，因此不参与判断",
    "unasked.fact": "按策略 {policy}，不查看 {fact}",
}


def render(code: str, params: Mapping[str, str | float], templates: Mapping[str, str] = ENGLISH) -> str:
    """The code's sentence with human units; the bare code where the template or a parameter is unknown."""
    template = templates.get(code)
    if template is None:
        return code
    try:
        return template.format_map({name: human(name, value) for name, value in params.items()})
    except KeyError:
        return code


def human(name: str, value: str | float) -> str:
    """``age_s=125`` becomes ``2 min 5 s``, ``used_ratio=0.5`` becomes ``50 %``."""
    if isinstance(value, str):
        return value
    if name.endswith("_bytes_per_s"):
        return f"{size(value)}/s"
    if name.endswith("_s"):
        return duration(value)
    if name.endswith("_bytes"):
        return size(value)
    if name.endswith("_ratio"):
        return f"{value * 100:.0f} %"
    if name.endswith("_c"):
        return f"{value:.0f} °C"
    return f"{value:g}"


def duration(seconds: float) -> str:
    """``4 s``, ``2 min 5 s``, ``3 h 10 min``; two units at most."""
    if seconds < 1:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 10 and seconds != int(seconds):
        return f"{seconds:.1f} s"
    whole = round(seconds)
    parts: list[str] = []
    for size_s, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, whole = divmod(whole, size_s)
        parts.append(f"{count} {unit}" if count else "")
        if not parts[0]:
            parts.clear()
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if part)


def size(size_bytes: float) -> str:
    """``1.5 GiB``; whole numbers below 1 KiB."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} PiB"
