import { quote } from '../machine/quote.ts'
import { machinePaths } from '../store/paths.ts'
import { listRecords } from './record.ts'

/** ssh_config(5) for all running machines. `nestvm` is the command to call this program by. */
export async function sshConfig(nestvm: readonly string[]): Promise<string> {
  const records = (await listRecords()).filter(({ phase }) => phase === 'running')
  const hosts = records.map(({ id, path }) => {
    const { key, knownHosts } = machinePaths(id)
    return [
      // With dots too: scp takes a name with a slash for a file.
      `Host ${path} ${path.replaceAll('/', '.')}`,
      '  User root',
      `  ProxyCommand ${literal([...nestvm, 'ssh-proxy', path].map(quote).join(' '))}`,
      `  IdentityFile "${literal(key)}"`,
      '  IdentitiesOnly yes',
      `  UserKnownHostsFile "${literal(knownHosts)}"`,
      `  HostKeyAlias ${path}`,
      '  StrictHostKeyChecking yes',
    ].join('\n')
  })
  return hosts.join('\n\n')
}

/** A percent sign begins a token: ssh_config(5), "TOKENS". */
function literal(text: string): string {
  return text.replaceAll('%', '%%')
}
