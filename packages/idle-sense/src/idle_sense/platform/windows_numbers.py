"""Numbers of Windows' headers, under the names that the headers give them, and with which they are compared."""

# ruff: noqa: N816 - the headers' names

from typing import Final

# <winuser.h>: messages, raw input
WM_INPUT: Final = 0x00FF
WM_INPUT_DEVICE_CHANGE: Final = 0x00FE
WM_POWERBROADCAST: Final = 0x0218
WM_WTSSESSION_CHANGE: Final = 0x02B1
PM_REMOVE: Final = 0x0001
QS_ALLINPUT: Final = 0x1CFF
MWMO_INPUTAVAILABLE: Final = 0x0004
RIDEV_REMOVE: Final = 0x00000001
RIDEV_INPUTSINK: Final = 0x00000100
RIDEV_DEVNOTIFY: Final = 0x00002000
GIDC_REMOVAL: Final = 2
RID_INPUT: Final = 0x10000003
RID_HEADER: Final = 0x10000005
RIDI_PREPARSEDDATA: Final = 0x20000005
RIDI_DEVICEINFO: Final = 0x2000000B
RIM_TYPEMOUSE: Final = 0
RIM_TYPEKEYBOARD: Final = 1
RIM_TYPEHID: Final = 2
MONITOR_DEFAULTTONEAREST: Final = 2

# <hidusage.h>, <hidpi.h>
HID_USAGE_PAGE_GENERIC: Final = 1
HID_USAGE_PAGE_BUTTON: Final = 9
HID_USAGE_GENERIC_MOUSE: Final = 2
HID_USAGE_GENERIC_JOYSTICK: Final = 4
HID_USAGE_GENERIC_GAMEPAD: Final = 5
HID_USAGE_GENERIC_KEYBOARD: Final = 6
HID_USAGE_GENERIC_HATSWITCH: Final = 0x39
HidP_Input: Final = 0
HIDP_STATUS_SUCCESS: Final = 0x00110000

# <wtsapi32.h>
WTSActive: Final = 0
WTSSessionInfoEx: Final = 25
WTS_SESSIONSTATE_LOCK: Final = 0
WTS_SESSIONSTATE_UNLOCK: Final = 1
NOTIFY_FOR_ALL_SESSIONS: Final = 1

# <shellapi.h>
QUNS_BUSY: Final = 2
QUNS_RUNNING_D3D_FULL_SCREEN: Final = 3
QUNS_PRESENTATION_MODE: Final = 4

# <winbase.h>, <winnt.h>
BATTERY_FLAG_NO_BATTERY: Final = 128
BATTERY_FLAG_UNKNOWN: Final = 255
AC_LINE_ONLINE: Final = 1
AC_LINE_UNKNOWN: Final = 255
SystemExecutionState: Final = 16
ES_DISPLAY_REQUIRED: Final = 2
LowMemoryResourceNotification: Final = 0
PROCESS_QUERY_LIMITED_INFORMATION: Final = 0x1000
SYNCHRONIZE: Final = 0x00100000
TH32CS_SNAPPROCESS: Final = 2
JOB_OBJECT_QUERY: Final = 4
JobObjectBasicAccountingInformation: Final = 1
JobObjectBasicProcessIdList: Final = 3
REG_NOTIFY_CHANGE_NAME: Final = 1
REG_NOTIFY_CHANGE_LAST_SET: Final = 4
WAIT_TIMEOUT: Final = 258
ERROR_SUCCESS: Final = 0
ERROR_FILE_NOT_FOUND: Final = 2
ERROR_ACCESS_DENIED: Final = 5
ERROR_MORE_DATA: Final = 234

# <pdh.h>, <pdhmsg.h>
PDH_FMT_DOUBLE: Final = 0x200
PDH_FMT_NOCAP100: Final = 0x8000
PDH_MORE_DATA: Final = 0x800007D2
PDH_CSTATUS_VALID_DATA: Final = 0
PDH_CSTATUS_NEW_DATA: Final = 1

# <mmdeviceapi.h>, <audiosessiontypes.h>, <objbase.h>
eRender: Final = 0
eCapture: Final = 1
DEVICE_STATE_ACTIVE: Final = 1
AudioSessionStateActive: Final = 1
CLSCTX_ALL: Final = 23
COINIT_MULTITHREADED: Final = 0

# <netlistmgr.h>
NLM_CONNECTION_COST_FIXED: Final = 2
NLM_CONNECTION_COST_VARIABLE: Final = 4
NLM_CONNECTION_COST_ROAMING: Final = 0x40000

# <ipifcons.h>, <ifdef.h>
IF_TYPE_ETHERNET_CSMACD: Final = 6
IF_TYPE_IEEE80211: Final = 71
IF_TYPE_WWANPP: Final = 243
IF_TYPE_WWANPP2: Final = 244
IfOperStatusUp: Final = 1
