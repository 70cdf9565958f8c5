package smapi

// RefreshAuthToken asks for a new pair with an old one.
const RefreshAuthToken Method = "refreshAuthToken"

var refreshAuthToken = method{
	name: RefreshAuthToken,
	read: func(d *document, header, _ int) (call Call, err error) {
		var loginToken int
		if call.Credentials, loginToken, err = d.credentials(header); err != nil {
			return call, err
		}
		if call.Credentials.Kind != LoginToken || call.Credentials.Key == "" {
			return call, errNoKey
		}
		call.HouseholdID, err = d.household(loginToken)
		return call, err
	},
	pair: pairOf(RefreshAuthToken),
}
