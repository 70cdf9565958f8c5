package smapi

// name is a local name of an element that matters here, whatever its namespace.
type name uint8

const (
	otherName name = iota

	envelopeName
	headerName
	bodyName

	credentialsName
	loginName
	loginTokenName
	sessionIDName
	usernameName
	passwordName
	tokenName
	keyName
	householdIDName
	linkCodeName
	linkDeviceIDName

	// Those that stand before an account's in credentials, by Sonos's schema.
	zonePlayerIDName
	deviceIDName
	deviceProviderName
	deviceCertName

	getDeviceAuthTokenName
	getSessionIDName
	refreshAuthTokenName
	getAppLinkName
	getDeviceLinkCodeName

	getSessionIDResultName
	faultName
	faultCodeName

	numNames

	firstBefore, lastBefore = zonePlayerIDName, deviceCertName
	firstMethod, lastMethod = getDeviceAuthTokenName, getDeviceLinkCodeName
)

var names = [numNames]string{
	envelopeName: "Envelope", headerName: "Header", bodyName: "Body",
	credentialsName: "credentials", loginName: "login", loginTokenName: "loginToken", sessionIDName: "sessionId",
	usernameName: "username", passwordName: "password", tokenName: "token", keyName: "key", householdIDName: "householdId",
	linkCodeName: "linkCode", linkDeviceIDName: "linkDeviceId",
	zonePlayerIDName: "zonePlayerId", deviceIDName: "deviceId", deviceProviderName: "deviceProvider", deviceCertName: "deviceCert",
	getDeviceAuthTokenName: string(GetDeviceAuthToken), getSessionIDName: string(GetSessionID),
	refreshAuthTokenName: string(RefreshAuthToken), getAppLinkName: string(GetAppLink), getDeviceLinkCodeName: string(GetDeviceLinkCode),
	getSessionIDResultName: "getSessionIdResult", faultName: "Fault", faultCodeName: "faultcode",
}

// byLength are the names that have a length.
var byLength = func() (table [32][]name) {
	for n := otherName + 1; n < numNames; n++ {
		table[len(names[n])] = append(table[len(names[n])], n)
	}
	return table
}()

func nameOf(local []byte) name {
	if len(local) >= len(byLength) {
		return otherName
	}
	for _, n := range byLength[len(local)] {
		if string(local) == names[n] {
			return n
		}
	}
	return otherName
}

// kind is the kind of the credentials in an element of this name, blank for one that has none.
func (n name) kind() Kind {
	switch n {
	case loginName:
		return Login
	case loginTokenName:
		return LoginToken
	case sessionIDName:
		return SessionID
	}
	return ""
}
