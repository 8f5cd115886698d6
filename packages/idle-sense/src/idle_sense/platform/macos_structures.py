"""Structures of macOS's headers, with the names that the headers give their fields. Alike on arm64 and x86_64."""

import ctypes

RUSAGE_INFO_V4 = 4
"""<sys/resource.h>"""
PROC_PPID_ONLY = 6
PROC_PIDTBSDINFO = 3
PROC_PIDT_SHORTBSDINFO = 13
"""<sys/proc_info.h>"""
HOST_CPU_LOAD_INFO = 3
HOST_VM_INFO64 = 4
"""<mach/host_info.h>"""
CTL_NET = 4
PF_ROUTE = 17
NET_RT_IFLIST2 = 6
RTM_IFINFO2 = 0x12
IFT_ETHER = 0x6
IFT_CELLULAR = 0xFF
"""<sys/sysctl.h>, <sys/socket.h>, <net/route.h>, <net/if_types.h>"""
USER_PROCESS = 7
"""<utmpx.h>"""


class RusageInfoV4(ctypes.Structure):
    """<sys/resource.h>, struct rusage_info_v4. Times are in ticks of mach_absolute_time."""

    _fields_ = (
        ("ri_uuid", ctypes.c_uint8 * 16),
        *(
            (name, ctypes.c_uint64)
            for name in (
                "ri_user_time",
                "ri_system_time",
                "ri_pkg_idle_wkups",
                "ri_interrupt_wkups",
                "ri_pageins",
                "ri_wired_size",
                "ri_resident_size",
                "ri_phys_footprint",
                "ri_proc_start_abstime",
                "ri_proc_exit_abstime",
                "ri_child_user_time",
                "ri_child_system_time",
                "ri_child_pkg_idle_wkups",
                "ri_child_interrupt_wkups",
                "ri_child_pageins",
                "ri_child_elapsed_abstime",
                "ri_diskio_bytesread",
                "ri_diskio_byteswritten",
                "ri_cpu_time_qos_default",
                "ri_cpu_time_qos_maintenance",
                "ri_cpu_time_qos_background",
                "ri_cpu_time_qos_utility",
                "ri_cpu_time_qos_legacy",
                "ri_cpu_time_qos_user_initiated",
                "ri_cpu_time_qos_user_interactive",
                "ri_billed_system_time",
                "ri_serviced_system_time",
                "ri_logical_writes",
                "ri_lifetime_max_phys_footprint",
                "ri_instructions",
                "ri_cycles",
                "ri_billed_energy",
                "ri_serviced_energy",
                "ri_interval_max_phys_footprint",
                "ri_runnable_time",
            )
        ),
    )


class BsdInfo(ctypes.Structure):
    """<sys/proc_info.h>, struct proc_bsdinfo."""

    _fields_ = (
        *(
            (name, ctypes.c_uint32)
            for name in (
                "pbi_flags",
                "pbi_status",
                "pbi_xstatus",
                "pbi_pid",
                "pbi_ppid",
                "pbi_uid",
                "pbi_gid",
                "pbi_ruid",
                "pbi_rgid",
                "pbi_svuid",
                "pbi_svgid",
                "rfu_1",
            )
        ),
        ("pbi_comm", ctypes.c_char * 16),
        ("pbi_name", ctypes.c_char * 32),
        ("pbi_nfiles", ctypes.c_uint32),
        ("pbi_pgid", ctypes.c_uint32),
        ("pbi_pjobc", ctypes.c_uint32),
        ("e_tdev", ctypes.c_uint32),
        ("e_tpgid", ctypes.c_uint32),
        ("pbi_nice", ctypes.c_int32),
        ("pbi_start_tvsec", ctypes.c_uint64),
        ("pbi_start_tvusec", ctypes.c_uint64),
    )


class BsdShortInfo(ctypes.Structure):
    """<sys/proc_info.h>, struct proc_bsdshortinfo: what every user may ask of every process."""

    _fields_ = (
        ("pbsi_pid", ctypes.c_uint32),
        ("pbsi_ppid", ctypes.c_uint32),
        ("pbsi_pgid", ctypes.c_uint32),
        ("pbsi_status", ctypes.c_uint32),
        ("pbsi_comm", ctypes.c_char * 16),
        ("pbsi_flags", ctypes.c_uint32),
        ("pbsi_uid", ctypes.c_uint32),
        ("pbsi_gid", ctypes.c_uint32),
        ("pbsi_ruid", ctypes.c_uint32),
        ("pbsi_rgid", ctypes.c_uint32),
        ("pbsi_svuid", ctypes.c_uint32),
        ("pbsi_svgid", ctypes.c_uint32),
        ("pbsi_rfu", ctypes.c_uint32),
    )


class HostCpuLoadInfo(ctypes.Structure):
    """<mach/host_info.h>, struct host_cpu_load_info: 10 ms of user, system, idle, nice."""

    _fields_ = (("cpu_ticks", ctypes.c_uint32 * 4),)


class VmStatistics64(ctypes.Structure):
    """<mach/vm_statistics.h>, struct vm_statistics64, up to its first revision: later systems add fields at the end, and
    fill as much as is asked for. Counts are pages."""

    _fields_ = (
        ("free_count", ctypes.c_uint32),
        ("active_count", ctypes.c_uint32),
        ("inactive_count", ctypes.c_uint32),
        ("wire_count", ctypes.c_uint32),
        ("zero_fill_count", ctypes.c_uint64),
        ("reactivations", ctypes.c_uint64),
        ("pageins", ctypes.c_uint64),
        ("pageouts", ctypes.c_uint64),
        ("faults", ctypes.c_uint64),
        ("cow_faults", ctypes.c_uint64),
        ("lookups", ctypes.c_uint64),
        ("hits", ctypes.c_uint64),
        ("purges", ctypes.c_uint64),
        ("purgeable_count", ctypes.c_uint32),
        ("speculative_count", ctypes.c_uint32),
        ("decompressions", ctypes.c_uint64),
        ("compressions", ctypes.c_uint64),
        ("swapins", ctypes.c_uint64),
        ("swapouts", ctypes.c_uint64),
        ("compressor_page_count", ctypes.c_uint32),
        ("throttled_count", ctypes.c_uint32),
        ("external_page_count", ctypes.c_uint32),
        ("internal_page_count", ctypes.c_uint32),
        ("total_uncompressed_pages_in_compressor", ctypes.c_uint64),
    )


class TimebaseInfo(ctypes.Structure):
    """<mach/mach_time.h>, struct mach_timebase_info: a tick is numer / denom nanoseconds."""

    _fields_ = (("numer", ctypes.c_uint32), ("denom", ctypes.c_uint32))


class TimeValue(ctypes.Structure):
    """<sys/_types/_timeval.h>, struct timeval."""

    _fields_ = (("tv_sec", ctypes.c_long), ("tv_usec", ctypes.c_int32))


class Utmpx(ctypes.Structure):
    """<utmpx.h>, struct utmpx."""

    _fields_ = (
        ("ut_user", ctypes.c_char * 256),
        ("ut_id", ctypes.c_char * 4),
        ("ut_line", ctypes.c_char * 32),
        ("ut_pid", ctypes.c_int32),
        ("ut_type", ctypes.c_short),
        ("ut_tv", TimeValue),
        ("ut_host", ctypes.c_char * 256),
        ("ut_pad", ctypes.c_uint32 * 16),
    )


class IfData64(ctypes.Structure):
    """<net/if_var.h>, struct if_data64. The header packs it by 4."""

    _pack_ = 4
    _fields_ = (
        *(
            (name, ctypes.c_uint8)
            for name in (
                "ifi_type",
                "ifi_typelen",
                "ifi_physical",
                "ifi_addrlen",
                "ifi_hdrlen",
                "ifi_recvquota",
                "ifi_xmitquota",
                "ifi_unused1",
            )
        ),
        ("ifi_mtu", ctypes.c_uint32),
        ("ifi_metric", ctypes.c_uint32),
        *(
            (name, ctypes.c_uint64)
            for name in (
                "ifi_baudrate",
                "ifi_ipackets",
                "ifi_ierrors",
                "ifi_opackets",
                "ifi_oerrors",
                "ifi_collisions",
                "ifi_ibytes",
                "ifi_obytes",
                "ifi_imcasts",
                "ifi_omcasts",
                "ifi_iqdrops",
                "ifi_noproto",
            )
        ),
        ("ifi_recvtiming", ctypes.c_uint32),
        ("ifi_xmittiming", ctypes.c_uint32),
        ("ifi_lastchange", ctypes.c_int32 * 2),
    )


class IfMsghdr2(ctypes.Structure):
    """<net/if.h>, struct if_msghdr2."""

    _pack_ = 4
    _fields_ = (
        ("ifm_msglen", ctypes.c_uint16),
        ("ifm_version", ctypes.c_uint8),
        ("ifm_type", ctypes.c_uint8),
        ("ifm_addrs", ctypes.c_int32),
        ("ifm_flags", ctypes.c_int32),
        # The header's compiler leaves two bytes after the index, so that the next field begins on four.
        ("ifm_index", ctypes.c_uint16),
        ("ifm_snd_len", ctypes.c_int32),
        ("ifm_snd_maxlen", ctypes.c_int32),
        ("ifm_snd_drops", ctypes.c_int32),
        ("ifm_timer", ctypes.c_int32),
        ("ifm_data", IfData64),
    )


class PropertyAddress(ctypes.Structure):
    """<CoreAudio/AudioHardwareBase.h>, struct AudioObjectPropertyAddress; CoreMediaIO's is the same."""

    _fields_ = (
        ("mSelector", ctypes.c_uint32),
        ("mScope", ctypes.c_uint32),
        ("mElement", ctypes.c_uint32),
    )


CHECKED: tuple[tuple[str, str, type[ctypes.Structure]], ...] = (
    ("struct rusage_info_v4", "sys/resource.h", RusageInfoV4),
    ("struct proc_bsdinfo", "sys/proc_info.h", BsdInfo),
    ("struct proc_bsdshortinfo", "sys/proc_info.h", BsdShortInfo),
    ("struct host_cpu_load_info", "mach/host_info.h", HostCpuLoadInfo),
    ("struct vm_statistics64", "mach/vm_statistics.h", VmStatistics64),
    ("struct mach_timebase_info", "mach/mach_time.h", TimebaseInfo),
    ("struct utmpx", "utmpx.h", Utmpx),
    ("struct if_data64", "net/if_var.h", IfData64),
    ("struct if_msghdr2", "net/if.h", IfMsghdr2),
)
"""C name, header and structure: for the check against Apple's headers."""
