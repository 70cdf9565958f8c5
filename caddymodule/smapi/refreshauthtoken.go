package smapi

// RefreshAuthToken asks for a new pair with an old one.
const RefreshAuthToken Method = "refreshAuthToken"

var refreshAuthToken = method{
	name: RefreshAuthToken,
	read: func(call *Call, d *document, header, _ int) error {
		loginToken, err := d.credentials(&call.Credentials, header)
		if err != nil {
			return err
		}
		if call.Credentials.Kind != LoginToken || call.Credentials.Key == "" {
			return errNoKey
		}
		call.HouseholdID, err = d.household(loginToken)
		return err
	},
	pair: pairOf(RefreshAuthToken),
}
