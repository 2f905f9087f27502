import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import { proxyFor } from './proxy.ts'

const environment = { ...process.env }
afterEach(() => {
  process.env = { ...environment }
})

function set(variables: Record<string, string>): void {
  for (const name of ['HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY', 'http_proxy', 'https_proxy', 'no_proxy'])
    delete process.env[name]
  Object.assign(process.env, variables)
}

const proxy = (url: string) => proxyFor(new URL(url))

test('a proxy is that of the scheme, in either spelling, and by HTTP unless said', () => {
  set({ https_proxy: 'secure:1', HTTP_PROXY: 'https://user:pass@plain:2' })
  assert.equal(proxy('https://a.example/'), 'http://secure:1')
  assert.equal(proxy('http://a.example/'), 'https://user:pass@plain:2')
  set({})
  assert.equal(proxy('https://a.example/'), undefined)
})

test('loopback is never led over a proxy', () => {
  set({ HTTPS_PROXY: 'p' })
  for (const host of ['localhost:5000', '127.0.0.1', '127.9.9.9:1', '[::1]:5000']) {
    assert.equal(proxy(`https://${host}/`), undefined, host)
  }
})

test('NO_PROXY names domains, addresses and networks, some with a port', () => {
  set({ HTTPS_PROXY: 'p', NO_PROXY: 'a.example, .b.example,*.c.example,10.0.0.0/8,192.0.2.1,d.example:5000,fd00::/8' })
  const direct = {
    ...{ 'a.example': true, 'x.a.example': true, 'xa.example': false },
    ...{ 'b.example': false, 'x.b.example': true, 'c.example': false, 'x.c.example': true },
    ...{ '10.1.2.3': true, '11.1.2.3': false, '192.0.2.1:443': true, '192.0.2.2': false },
    ...{ 'd.example': false, 'd.example:5000': true, '[fd00::1]': true, '[fe80::1]': false },
  }
  for (const [host, expected] of Object.entries(direct)) {
    assert.equal(proxy(`https://${host}/`) === undefined, expected, host)
  }
  set({ HTTPS_PROXY: 'p', no_proxy: '*' })
  assert.equal(proxy('https://a.example/'), undefined)
})
