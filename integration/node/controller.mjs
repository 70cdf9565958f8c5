// A client of music services by npm's @svrooij/sonos, for tests:
//
//	node controller.mjs <options of SmapiClient, as JSON> <method> [<argument, as JSON>]
//
// It prints the result as JSON, or {"fault": <faultcode>}.

import { SmapiClient } from '@svrooij/sonos/lib/musicservices/smapi-client.js';

const [options, method, argument] = process.argv.slice(2);
const client = new SmapiClient({ name: 'test', serviceId: 1, ...JSON.parse(options) });
try {
  console.log(JSON.stringify(await client[method](argument && JSON.parse(argument))));
} catch (error) {
  if (!error.Fault) {
    throw error;
  }
  console.log(JSON.stringify({ fault: error.Fault.faultcode }));
}
