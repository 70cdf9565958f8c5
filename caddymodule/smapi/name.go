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

	callName // of all methods that are known

	getSessionIDResultName
	faultName
	faultCodeName

	numNames

	firstBefore, lastBefore = zonePlayerIDName, deviceCertName
)

var names = map[string]name{
	"Envelope": envelopeName, "Header": headerName, "Body": bodyName,
	"credentials": credentialsName, "login": loginName, "loginToken": loginTokenName, "sessionId": sessionIDName,
	"username": usernameName, "password": passwordName, "token": tokenName, "key": keyName, "householdId": householdIDName,
	"linkCode": linkCodeName, "linkDeviceId": linkDeviceIDName,
	"zonePlayerId": zonePlayerIDName, "deviceId": deviceIDName, "deviceProvider": deviceProviderName, "deviceCert": deviceCertName,
	"getSessionIdResult": getSessionIDResultName, "Fault": faultName, "faultcode": faultCodeName,
}

// named is a text that is a name.
type named struct {
	text string
	name name
}

// byLength has the names by their lengths, which tell most of them apart.
var byLength = func() (table [32][]named) {
	for text, n := range names {
		table[len(text)] = append(table[len(text)], named{text, n})
	}
	for _, m := range known {
		if m.name != Poll { // which is getDeviceAuthToken
			table[len(m.name)] = append(table[len(m.name)], named{string(m.name), callName})
		}
	}
	return table
}()

func nameOf(local []byte) name {
	if len(local) >= len(byLength) {
		return otherName
	}
	for _, n := range byLength[len(local)] {
		if string(local) == n.text {
			return n.name
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
