import { Command } from 'commander'
import { session } from './session.ts'

export function sshConfigCommand(): Command {
  return new Command('ssh-config')
    .description('Print an ssh configuration, with which ssh, scp and editors reach every machine.')
    .addHelpText(
      'after',
      `
Example:
  $ nestvm ssh-config > ~/.ssh/nestvm.conf      then put "Include nestvm.conf" first in ~/.ssh/config
  $ ssh outer/inner
  $ scp notes.txt outer.inner:                  scp wants dots`,
    )
    .action(() =>
      session(false, async () => {
        const { sshConfig } = await import('../stack/ssh-config.ts')
        console.log(await sshConfig([process.execPath, process.argv[1] ?? 'nestvm']))
        return 0
      }),
    )
}

/** What the configuration names as ProxyCommand: carries ssh's bytes over standard input and output. */
export function sshProxyCommand(): Command {
  return new Command('ssh-proxy').argument('<machine>').action((path: string) =>
    session(false, async ({ context }) => {
      const { runningRecord } = await import('../stack/record.ts')
      const { sshAddress } = await import('../stack/reach.ts')
      const record = await runningRecord(path)
      const { machine } = await context.hostNamed(record.host)
      const stream = await machine.connect(sshAddress(record), context.signal)
      process.stdin.pipe(stream)
      stream.pipe(process.stdout)
      await new Promise<void>((resolve) => stream.once('close', () => resolve()))
      process.stdin.pause()
      return 0
    }),
  )
}
