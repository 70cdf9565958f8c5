package smapi

// GetDeviceAuthToken upgrades an account when it has no linkCode; with one it is a Poll.
const GetDeviceAuthToken Method = "getDeviceAuthToken"

var getDeviceAuthToken = method{
	name: GetDeviceAuthToken,
	read: func(d *document, header, el int) (call Call, err error) {
		if call.HouseholdID, err = d.household(el); err != nil {
			return call, err
		}
		if call.HouseholdID == "" {
			return call, errNoHousehold
		}
		call.Credentials, _, err = d.credentials(header)
		return call, err
	},
	pair: pairOf(GetDeviceAuthToken),
}
