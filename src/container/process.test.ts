import assert from 'node:assert/strict'
import { test } from 'node:test'
import { commandOf, ociProcess } from './process.ts'

const defaults = {
  config: { env: ['PATH=/opt/bin', 'A=image', 'B='], workdir: '/srv', user: 'alice' },
  passwd: 'root:x:0:0::/root:/bin/sh\nalice:x:1000:100::/home/alice:/bin/sh\n',
  group: 'wheel:x:10:alice\n',
  ...{ hostname: 'box', privileged: false },
}
const request = { env: {} }

test('the image says who runs where with what environment, unless the command line does', () => {
  const own = ociProcess(['x'], request, defaults)
  assert.deepEqual(own.user, { uid: 1000, gid: 100, additionalGids: [10] })
  assert.equal(own.cwd, '/srv')
  assert.deepEqual(own.env, ['PATH=/opt/bin', 'HOSTNAME=box', 'HOME=/home/alice', 'A=image', 'B='])
  const said = ociProcess(['x'], { env: { A: 'b=c', N: '1' }, cwd: '/tmp', user: '5:6', tty: {} }, defaults)
  assert.deepEqual([said.user.uid, said.user.gid, said.cwd, said.terminal], [5, 6, '/tmp', true])
  assert.ok(said.env.includes('A=b=c') && said.env.includes('N=1') && said.env.includes('TERM=xterm'))
  const term = (env: Record<string, string>) =>
    ociProcess(
      ['x'],
      { env, tty: { term: 'vt100' } },
      { ...defaults, config: { ...defaults.config, env: ['TERM=image'] } },
    )
  assert.deepEqual([term({}).env.at(-1), term({ TERM: 'own' }).env.at(-1)], ['TERM=vt100', 'TERM=own'])
})

test('only root has capabilities in effect, and all of them only where privileged', () => {
  assert.deepEqual(ociProcess(['x'], request, defaults).capabilities.effective, [])
  const root = ociProcess(['x'], { ...request, user: 'root' }, defaults).capabilities
  assert.ok(root.effective.includes('CAP_CHOWN') && !root.effective.includes('CAP_SYS_ADMIN'))
  const privileged = ociProcess(['x'], { ...request, user: '0' }, { ...defaults, privileged: true }).capabilities
  assert.ok(privileged.effective.includes('CAP_SYS_ADMIN'))
})

test('a command replaces that of the image but not its entrypoint; one of both there must be', () => {
  const config = { entrypoint: ['/init'], cmd: ['start'] }
  assert.deepEqual(commandOf(config, []), ['/init', 'start'])
  assert.deepEqual(commandOf(config, ['stop', 'now']), ['/init', 'stop', 'now'])
  assert.throws(() => commandOf({ entrypoint: [], cmd: [] }, []), { code: 'NO_COMMAND' })
})
