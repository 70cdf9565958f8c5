package smapi

// GetDeviceAuthToken upgrades an account when it has no linkCode; with one it is a Poll.
const GetDeviceAuthToken Method = "getDeviceAuthToken"

var getDeviceAuthToken = method{
	name: GetDeviceAuthToken,
	read: func(call *Call, d *document, header, el int) (err error) {
		if call.HouseholdID, err = d.household(el); err != nil {
			return err
		}
		if call.HouseholdID == "" {
			return errNoHousehold
		}
		_, err = d.credentials(&call.Credentials, header)
		return err
	},
	pair: pairOf(GetDeviceAuthToken),
}
