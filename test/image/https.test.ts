// Pulls over TLS, through proxies, and with tokens: from real registries on this host, with certificates made here.
import assert from 'node:assert/strict'
import { chmod, copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { type Certificate, makeAuthority, makeCertificate } from './certificates.ts'
import { buildImage } from './images.ts'
import { getPrograms, type Programs } from './programs.ts'
import { startProxy } from './proxy.ts'
import { type Registry, startRegistry } from './registry.ts'
import { newHome, pull } from './setting.ts'
import { startTokenServer } from './token-server.ts'

let programs: Programs
let dir: string
let authority: Certificate
let certificate: Certificate
/** Speaks TLS, under the names localhost and registry.test. */
let registry: Registry
let plain: Registry

const image = buildImage([[{ path: 'etc/hello', data: 'hello\n' }]])

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'https-'))
  programs = await getPrograms()
  authority = await makeAuthority(dir)
  certificate = await makeCertificate(authority, dir, 'server', 'DNS:localhost,DNS:registry.test')
  registry = await startRegistry(programs, join(dir, 'tls'), { tls: certificate })
  plain = await startRegistry(programs, join(dir, 'plain'))
  for (const each of [registry, plain]) await each.push('app', 'latest', image)
})
after(async () => {
  for (const each of [registry, plain]) await each?.[Symbol.asyncDispose]()
  await rm(dir, { recursive: true })
})

/** Loopback is insecure unless this says otherwise. */
async function configure(home: string, host: string, insecure: boolean): Promise<void> {
  await mkdir(join(home, 'config/containers'), { recursive: true })
  await writeFile(
    join(home, 'config/containers/registries.conf'),
    `[[registry]]\nlocation = "${host}"\ninsecure = ${insecure}\n`,
  )
}

async function believe(home: string, host: string): Promise<string> {
  const certs = join(home, 'config/containers/certs.d', host)
  await mkdir(certs, { recursive: true })
  await copyFile(authority.cert, join(certs, 'ca.crt'))
  return certs
}

const throughProxy = ({ host }: Registry) => host.replace('localhost', 'registry.test')

test('a registry has to have a certificate of an authority that is believed, for its name', async () => {
  await using home = await newHome()
  const { host } = registry
  await configure(home.dir, host, false)
  await assert.rejects(pull(programs, `${host}/app`), {
    code: 'REGISTRY_UNREACHABLE',
    message: /certificate/,
    hint: new RegExp(`certs.d/${host}/ca.crt`),
  })
  await believe(home.dir, host)
  assert.equal((await pull(programs, `${host}/app`)).reference, `${host}/app:latest`)

  const other = await makeCertificate(authority, dir, 'other.test')
  await using misnamed = await startRegistry(programs, join(dir, 'misnamed'), { tls: other })
  await configure(home.dir, misnamed.host, false)
  await believe(home.dir, misnamed.host)
  await assert.rejects(pull(programs, `${misnamed.host}/app`), { message: /altnames/ })
})

test('authorities of the host are believed', async () => {
  await using home = await newHome()
  await configure(home.dir, registry.host, false)
  process.env.SSL_CERT_FILE = authority.cert
  assert.ok((await pull(programs, `${registry.host}/app`)).size > 0)
})

test('an insecure registry may have any certificate, or speak plain HTTP; any other may not', async () => {
  await using home = await newHome()
  for (const { host } of [registry, plain]) {
    await configure(home.dir, host, true)
    assert.ok((await pull(programs, `${host}/app`)).size > 0)
  }
  await configure(home.dir, plain.host, false)
  await assert.rejects(pull(programs, `${plain.host}/app`, { pull: 'always' }), { code: 'REGISTRY_UNREACHABLE' })
})

test('a registry that wants a certificate gets the one that is kept for it', async () => {
  await using home = await newHome()
  const client = await makeCertificate(authority, dir, 'client')
  const tls = { ...certificate, clients: authority.cert }
  await using strict = await startRegistry(programs, join(dir, 'strict'), { tls })
  await strict.push('app', 'latest', image)
  const certs = await believe(home.dir, strict.host)
  for (const insecure of [false, true]) {
    await configure(home.dir, strict.host, insecure)
    await assert.rejects(pull(programs, `${strict.host}/app`), {
      code: 'REGISTRY_UNREACHABLE',
      hint: /client\.cert and client\.key/,
    })
  }
  await copyFile(client.cert, join(certs, 'client.cert'))
  await assert.rejects(pull(programs, `${strict.host}/app`), { code: 'BAD_CERTIFICATE', message: /client.key is not/ })
  await copyFile(client.key, join(certs, 'client.key'))
  assert.ok((await pull(programs, `${strict.host}/app`)).size > 0)
  await writeFile(join(certs, 'client.key'), 'nonsense')
  await assert.rejects(pull(programs, `${strict.host}/app`, { pull: 'always' }), { code: 'BAD_CERTIFICATE' })
})

test('proxies lead to registries: by tunnels to those that speak TLS, and by plain requests to others', async () => {
  await using home = await newHome()
  await using proxy = await startProxy()
  process.env.HTTPS_PROXY = proxy.url
  process.env.HTTP_PROXY = proxy.url
  const host = throughProxy(registry)
  await configure(home.dir, host, false)
  await believe(home.dir, host)
  assert.ok((await pull(programs, `${host}/app`)).size > 0)
  assert.deepEqual([...new Set(proxy.asked)], [`CONNECT ${host}`])

  proxy.asked.length = 0
  await configure(home.dir, throughProxy(plain), true)
  assert.ok((await pull(programs, `${throughProxy(plain)}/app`)).size > 0)
  const gets = proxy.asked.filter((line) => line.startsWith('GET'))
  assert.ok(gets.includes(`GET http://${throughProxy(plain)}/v2/app/manifests/latest`), proxy.asked.join('\n'))

  process.env.no_proxy = 'test'
  proxy.asked.length = 0
  // No such name: what is not led over the proxy is looked up here.
  await assert.rejects(pull(programs, `${host}/app`, { pull: 'always' }), { message: /ENOTFOUND|EAI_AGAIN/ })
  assert.deepEqual(proxy.asked, [])
})

test('a proxy may want a password', async () => {
  await using home = await newHome()
  await using proxy = await startProxy('p@ss')
  const host = throughProxy(registry)
  await configure(home.dir, host, false)
  await believe(home.dir, host)
  process.env.HTTPS_PROXY = proxy.url
  await assert.rejects(pull(programs, `${host}/app`), { code: 'REGISTRY_UNREACHABLE', message: /407/ })
  process.env.HTTPS_PROXY = proxy.url.replace('//', '//user:p%40ss@')
  assert.ok((await pull(programs, `${host}/app`)).size > 0)
})

test('tokens are got from a token server over TLS, with a password or with a token of a helper program', async () => {
  await using home = await newHome()
  await using tokens = await startTokenServer(certificate, 'secret')
  const token = { realm: tokens.realm, authority: authority.cert }
  await using closed = await startRegistry(programs, join(dir, 'token'), { tls: certificate, token })
  const { host } = closed
  await closed.push('team/app', 'latest', image)
  await configure(home.dir, host, false)
  await believe(home.dir, host)
  await assert.rejects(pull(programs, `${host}/team/app`), { code: 'IMAGE_DENIED', hint: /login/ })

  const kept = join(home.dir, 'docker/config.json')
  await mkdir(join(home.dir, 'docker'))
  const auth = Buffer.from('user:secret').toString('base64')
  await writeFile(kept, JSON.stringify({ auths: { [host]: { auth } } }))
  assert.ok((await pull(programs, `${host}/team/app`)).size > 0)
  assert.deepEqual(tokens.asked.at(-1), { scope: 'repository:team/app:pull', by: 'basic' })

  const helper = join(home.dir, 'docker-credential-test')
  await writeFile(
    helper,
    `#!/bin/sh\n[ "$1 $(cat)" = "get ${host}" ] && echo '{"Username":"<token>","Secret":"secret"}'\n`,
  )
  await chmod(helper, 0o755)
  process.env.PATH = `${home.dir}:${process.env.PATH}`
  await writeFile(kept, JSON.stringify({ credHelpers: { [host]: 'test' } }))
  assert.ok((await pull(programs, `${host}/team/app`, { pull: 'always' })).size > 0)
  assert.deepEqual(tokens.asked.at(-1), { scope: 'repository:team/app:pull', by: 'refresh' })

  await writeFile(kept, '{}')
  await writeFile(
    join(home.dir, 'config/containers/registries.conf'),
    `credential-helpers = ["test"]\n[[registry]]\nlocation = "${host}"\ninsecure = false\n`,
  )
  assert.ok((await pull(programs, `${host}/team/app`, { pull: 'always' })).size > 0)
})
