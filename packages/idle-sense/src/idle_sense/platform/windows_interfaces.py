"""Interfaces of COM: their names' numbers, and the places of the methods that are called, as in the headers."""

from collections.abc import Mapping

CLASSES: Mapping[str, str] = {
    "MMDeviceEnumerator": "bcde0395-e52f-467c-8e3d-c4579291692e",
    "NetworkListManager": "dcb00c01-570f-4a9b-8d69-199fdba5723b",
}
IDENTITIES: Mapping[str, str] = {
    "IMMDeviceEnumerator": "a95664d2-9614-4f35-a746-de8db63617e6",
    "IAudioSessionManager2": "77aa99a0-1bd6-484f-8bc7-2c654c9a9b6f",
    "IAudioSessionControl2": "bfb7ff88-7239-4fc9-8fa2-07c950be9c6d",
    "IAudioMeterInformation": "c02216f6-8c67-4b5b-9d00-d008e73e0064",
    "INetworkCostManager": "dcb00008-570f-4a9b-8d69-199fdba5723b",
}
"""<mmdeviceapi.h>, <audiopolicy.h>, <endpointvolume.h>, <netlistmgr.h>"""
PLACES: Mapping[str, int] = {
    "IUnknown.QueryInterface": 0,
    "IUnknown.Release": 2,
    "IMMDeviceEnumerator.EnumAudioEndpoints": 3,
    "IMMDeviceCollection.GetCount": 3,
    "IMMDeviceCollection.Item": 4,
    "IMMDevice.Activate": 3,
    "IAudioSessionManager2.GetSessionEnumerator": 5,
    "IAudioSessionEnumerator.GetCount": 3,
    "IAudioSessionEnumerator.GetSession": 4,
    "IAudioSessionControl2.GetState": 3,
    "IAudioSessionControl2.GetProcessId": 14,
    "IAudioSessionControl2.IsSystemSoundsSession": 15,
    "IAudioMeterInformation.GetPeakValue": 3,
    "INetworkCostManager.GetCost": 3,
}
