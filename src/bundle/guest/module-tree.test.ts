import assert from 'node:assert/strict'
import { test } from 'node:test'
import { moduleIndex } from './module-tree.ts'

const module = (name: string, depends: string, ...aliases: string[]) => {
  const settings = [...aliases.map((alias) => `alias=${alias}`), `depends=${depends}`].join('\0')
  return { name, data: Buffer.from(`\x7fELF\0license=GPL\0${settings}\0`) }
}

test('each module is listed with all it needs, nearest first, by its path below the directory', () => {
  const base = [module('virtio', ''), module('failover', ''), module('net_failover', 'failover')]
  const layer = [module('kvm_amd', 'kvm,ccp'), module('kvm', 'irqbypass,net-failover'), module('irqbypass', '')]
  assert.equal(
    moduleIndex(base, layer).get('modules.dep'),
    [
      ...['virtio.ko:', 'failover.ko:', 'net_failover.ko: failover.ko'],
      'layer/kvm_amd.ko: layer/kvm.ko net_failover.ko failover.ko layer/irqbypass.ko',
      'layer/kvm.ko: net_failover.ko failover.ko layer/irqbypass.ko',
      'layer/irqbypass.ko:\n',
    ].join('\n'),
  )
})

test('the kernel finds a module by any of its aliases', () => {
  const [overlay] = [module('overlay', '', 'fs-overlay', 'overlayfs')]
  assert.equal(moduleIndex([overlay], []).get('modules.alias'), 'alias fs-overlay overlay\nalias overlayfs overlay\n')
})
