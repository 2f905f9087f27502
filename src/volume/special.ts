import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { linkSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { LocalMachine } from '../machine/local.ts'
import { run } from '../machine/run.ts'
import type { Inode } from './inode.ts'
import type { Tree } from './tree.ts'

// Node has no mknod(2). Both kinds of file are made under a name of ours and then linked to theirs, which fails, as it
// should, where that name is taken.

/** By the program mknod(1), in that directory. */
export async function makeFifo(tree: Tree, dir: Inode, name: string): Promise<void> {
  await linked(tree, dir, name, async (temporary) => {
    // The child changes to it while it still has this process's descriptors.
    await run(new LocalMachine(), ['mknod', temporary, 'p'], { cwd: tree.path(dir), timeoutMs: 5000 })
  })
}

/** By listening there. Nobody is listening afterwards, until a program in a guest does so in its own kernel. */
export async function makeSocket(tree: Tree, dir: Inode, name: string): Promise<void> {
  const server = createServer()
  try {
    await linked(tree, dir, name, async (temporary) => {
      server.listen(`${tree.path(dir)}/${temporary}`)
      await once(server, 'listening')
    })
  } finally {
    server.close()
  }
}

async function linked(tree: Tree, dir: Inode, name: string, make: (temporary: string) => Promise<void>): Promise<void> {
  const temporary = `.nestvm-${randomBytes(6).toString('hex')}`
  tree.pin(dir)
  try {
    await make(temporary)
    linkSync(tree.at(dir, temporary), tree.at(dir, name))
  } finally {
    rmSync(tree.at(dir, temporary), { force: true })
    tree.unpin(dir)
  }
}
