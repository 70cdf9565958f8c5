// An old music service by npm's soap, for tests: node oldservice.mjs <WSDL>. In the environment, KIND is session_id or login,
// and SESSIONS a folder with a file for each session, which the test may empty. It prints the port at which it listens, and
// ends with its standard input.

import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import soap from 'soap';

const { KIND, SESSIONS } = process.env;
const fault = (faultcode, faultstring) => ({ Fault: { faultcode, faultstring, statusCode: 500 } });
const right = (login) => login?.username === 'testuser' && login?.password === '12345';

const server = http.createServer((_, response) => { response.statusCode = 404; response.end(); });
server.listen(0, '127.0.0.1', () => {
  soap.listen(server, '/smapi', {
    OldService: {
      OldService: {
        getSessionId: (login) => {
          if (!right(login)) {
            throw fault('Client.LoginInvalid', 'no such account, or another password');
          }
          const id = randomBytes(16).toString('hex');
          writeFileSync(`${SESSIONS}/${id}`, '');
          return { getSessionIdResult: id };
        },
        getMetadata: (call, _callback, { credentials }) => {
          const allowed = KIND === 'login' ? right(credentials?.login)
            : /^[0-9a-f]+$/.test(credentials?.sessionId) && existsSync(`${SESSIONS}/${credentials.sessionId}`);
          if (!allowed) {
            throw fault(KIND === 'login' ? 'Client.LoginInvalid' : 'Client.SessionIdInvalid', 'not allowed');
          }
          return {
            getMetadataResult: {
              index: 0, count: 1, total: 1,
              mediaCollection: [{ id: `${call.id}/1`, itemType: 'album', title: 'Älbum & more' }],
            },
          };
        },
      },
    },
  }, readFileSync(process.argv[2], 'utf8'));
  console.log(server.address().port);
});
process.stdin.on('end', () => process.exit(0)).resume();
