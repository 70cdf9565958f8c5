<?php
// An old music service by PHP's SoapServer, for tests: php -S <address> server.php. In the environment, KIND is session_id or
// login, and SESSIONS a folder with a file for each session, which the test may empty.

class OldService {
	private $allowed = false;

	public function credentials($credentials) { // the header, which comes before the call
		$login = $credentials->login ?? null;
		$this->allowed = getenv('KIND') === 'login'
			? $login && $login->username === 'testuser' && $login->password === '12345'
			: isset($credentials->sessionId) && ctype_xdigit($credentials->sessionId) && is_file(getenv('SESSIONS') . '/' . $credentials->sessionId);
	}

	public function getSessionId($call) {
		if ($call->username !== 'testuser' || $call->password !== '12345') {
			throw new SoapFault('Client.LoginInvalid', 'no such account, or another password');
		}
		$id = bin2hex(random_bytes(16));
		touch(getenv('SESSIONS') . '/' . $id);
		return ['getSessionIdResult' => $id];
	}

	public function getMetadata($call) {
		if (!$this->allowed) {
			throw new SoapFault(getenv('KIND') === 'login' ? 'Client.LoginInvalid' : 'Client.SessionIdInvalid', 'not allowed');
		}
		return ['getMetadataResult' => ['index' => 0, 'count' => 1, 'total' => 1,
			'mediaCollection' => [['id' => $call->id . '/1', 'itemType' => 'album', 'title' => 'Älbum & more']]]];
	}
}

$server = new SoapServer(__DIR__ . '/smapi.wsdl', ['cache_wsdl' => WSDL_CACHE_NONE]);
$server->setClass(OldService::class);
$server->handle();
