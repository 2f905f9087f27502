import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { LocalMachine } from '../../machine/local.ts'
import { parseReference } from '../reference.ts'
import { parseChallenges } from './challenge.ts'
import { findCredentials } from './credentials.ts'
import { endpointsFor } from './settings.ts'

const environment = { ...process.env }
let dir: string

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'registry-'))
  Object.assign(process.env, {
    XDG_CONFIG_HOME: join(dir, 'config'),
    DOCKER_CONFIG: join(dir, 'docker'),
    XDG_RUNTIME_DIR: join(dir, 'run'),
  })
  for (const name of ['REGISTRY_AUTH_FILE', 'CONTAINERS_REGISTRIES_CONF']) delete process.env[name]
})
afterEach(() => {
  process.env = { ...environment }
  rmSync(dir, { recursive: true })
})

function write(path: string, content: string): void {
  mkdirSync(join(dir, path, '..'), { recursive: true })
  writeFileSync(join(dir, path), content)
}

async function endpoints(reference: string): Promise<string[]> {
  const parsed = parseReference(reference)
  assert.ok(parsed.kind === 'registry')
  return (await endpointsFor(parsed)).map(
    ({ host, repository, insecure }) => `${insecure ? '!' : ''}${host}/${repository}`,
  )
}

const find = (registry: string, repository = 'a/b') => findCredentials({ registry, repository }, new LocalMachine())
const auth = (text: string) => Buffer.from(text).toString('base64')

test('without settings an image is at its registry; loopback is insecure', async () => {
  assert.deepEqual(await endpoints('alpine'), ['registry-1.docker.io/library/alpine'])
  assert.deepEqual(await endpoints('quay.io/a/b'), ['quay.io/a/b'])
  assert.deepEqual(await endpoints('localhost:5000/a'), ['!localhost:5000/a'])
  assert.deepEqual(await endpoints('127.0.0.1:5000/a'), ['!127.0.0.1:5000/a'])
})

test('mirrors, locations, insecure and blocked registries are those of registries.conf', async () => {
  write(
    'config/containers/registries.conf',
    `
    unqualified-search-registries = ["example.com"]
    [[registry]]
    location = "docker.io"
    [[registry.mirror]]
    location = "mirror.example/hub"
    insecure = true
    [[registry.mirror]]
    location = "digests.example"
    pull-from-mirror = "digest-only"
    [[registry]]
    prefix = "docker.io/bad"
    blocked = true
    [[registry]]
    prefix = "old.example/team"
    location = "new.example/group"
    [[registry]]
    prefix = "*.lab.example"
    insecure = true`,
  )
  assert.deepEqual(await endpoints('alpine'), [
    '!mirror.example/hub/library/alpine',
    'registry-1.docker.io/library/alpine',
  ])
  assert.equal((await endpoints(`alpine@sha256:${'0'.repeat(64)}`)).length, 3)
  await assert.rejects(endpoints('bad/image'), { code: 'IMAGE_BLOCKED' })
  assert.deepEqual(await endpoints('badly/image'), [
    '!mirror.example/hub/badly/image',
    'registry-1.docker.io/badly/image',
  ])
  assert.deepEqual(await endpoints('old.example/team/x'), ['new.example/group/x'])
  assert.deepEqual(await endpoints('a.lab.example/x'), ['!a.lab.example/x'])
  write('config/containers/registries.conf', '[[registry]]\nlocation = "localhost:5000"\ninsecure = false')
  assert.deepEqual(await endpoints('localhost:5000/a'), ['localhost:5000/a'])
  write('config/containers/registries.conf', 'registry = 1')
  await assert.rejects(endpoints('alpine'), { code: 'BAD_REGISTRIES_CONF', message: /registries.conf/ })
})

test('credentials come from the files of podman and docker, the most specific entry first', async () => {
  assert.equal(await find('x.example'), undefined)
  write(
    'docker/config.json',
    JSON.stringify({
      auths: { 'https://index.docker.io/v1/': { auth: auth('hub:p:w') }, 'x.example': { auth: auth('d:1') } },
    }),
  )
  assert.deepEqual(await find('docker.io'), { username: 'hub', password: 'p:w' })
  assert.deepEqual(await find('x.example'), { username: 'd', password: '1' })
  write(
    'run/containers/auth.json',
    JSON.stringify({ auths: { 'x.example': { auth: auth('p:1') }, 'x.example/a': { auth: auth('p:2') } } }),
  )
  assert.deepEqual(await find('x.example'), { username: 'p', password: '2' })
  assert.deepEqual(await find('x.example', 'c'), { username: 'p', password: '1' })
  write('run/containers/auth.json', '{ "secret')
  await assert.rejects(
    find('x.example'),
    (error: Error) => /auth.json/.test(error.message) && !/secret/.test(error.message),
  )
})

test('helper programs are asked as docker asks them', async () => {
  write(
    'bin/docker-credential-test',
    `#!/bin/sh
read server
case $server in
  good.example) echo '{"ServerURL":"x","Username":"u","Secret":"s"}' ;;
  token.example) echo '{"Username":"<token>","Secret":"t"}' ;;
  none.example) echo 'credentials not found in native keychain'; exit 1 ;;
  *) echo locked >&2; exit 1 ;;
esac
`,
  )
  chmodSync(join(dir, 'bin/docker-credential-test'), 0o755)
  process.env.PATH = `${join(dir, 'bin')}:${process.env.PATH}`
  write('docker/config.json', JSON.stringify({ credsStore: 'test', credHelpers: { 'absent.example': 'nowhere' } }))
  assert.deepEqual(await find('good.example'), { username: 'u', password: 's' })
  assert.deepEqual(await find('token.example'), { identityToken: 't' })
  assert.equal(await find('none.example'), undefined)
  await assert.rejects(find('other.example'), { code: 'CREDENTIAL_HELPER_FAILED', message: /locked/ })
  await assert.rejects(find('absent.example'), { code: 'CREDENTIAL_HELPER_FAILED', message: /is not there/ })
})

test('registries.conf may name the programs that keep credentials', async () => {
  write('bin/docker-credential-own', '#!/bin/sh\necho "{\\"Username\\":\\"u\\",\\"Secret\\":\\"$(cat)\\"}"\n')
  chmodSync(join(dir, 'bin/docker-credential-own'), 0o755)
  process.env.PATH = `${join(dir, 'bin')}:${process.env.PATH}`
  write('docker/config.json', JSON.stringify({ auths: { 'x.example': { auth: auth('d:1') } } }))
  const order = (...helpers: string[]) =>
    write('config/containers/registries.conf', `credential-helpers = ${JSON.stringify(helpers)}`)
  order('own')
  assert.deepEqual(await find('x.example'), { username: 'u', password: 'x.example' })
  order('containers-auth.json', 'own')
  assert.deepEqual(await find('x.example'), { username: 'd', password: '1' })
  assert.deepEqual(await find('y.example'), { username: 'u', password: 'y.example' })
})

test('challenges are parsed', () => {
  const header =
    'Bearer realm="https://a.example/token?x=1,2",service=reg,scope="repository:a/b:pull,push", Basic realm="\\"x\\""'
  assert.deepEqual(parseChallenges(header), [
    {
      scheme: 'bearer',
      parameters: { realm: 'https://a.example/token?x=1,2', service: 'reg', scope: 'repository:a/b:pull,push' },
    },
    { scheme: 'basic', parameters: { realm: '"x"' } },
  ])
})
