import java.nio.file.*;
import java.util.*;
import java.util.concurrent.CountDownLatch;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.node.*;
import org.elasticsearch.plugins.Plugin;

/** Real Elasticsearch 7.17 single node, modules taken from the class path. args: HOME HTTP_PORT TRANSPORT_PORT */
public class EsNode extends Node {
    static final List<String> MODULES = List.of("org.elasticsearch.transport.Netty4Plugin", "org.elasticsearch.reindex.ReindexPlugin",
        "org.elasticsearch.index.mapper.MapperExtrasPlugin", "org.elasticsearch.join.ParentJoinPlugin", "org.elasticsearch.script.mustache.MustachePlugin");
    EsNode(Environment env, Collection<Class<? extends Plugin>> plugins) { super(env, plugins, false); }
    public static void main(String[] a) throws Exception {
        Path home = Paths.get(a[0]).toAbsolutePath();
        for (String d : List.of("config", "data", "logs", "modules", "plugins", "tmp")) Files.createDirectories(home.resolve(d));
        Settings s = Settings.builder().put("cluster.name", "contract").put("node.name", "contract-1").put("path.home", home.toString()).put("path.data", home.resolve("data").toString())
            .put("http.port", a[1]).put("transport.port", a[2]).put("network.host", "127.0.0.1").put("discovery.type", "single-node").put("transport.type", "netty4").put("http.type", "netty4")
            // Its limit is on live memory then. By default it counts garbage too, which only G1 is asked to collect before requests are refused (429).
            .put("indices.breaker.total.use_real_memory", false)
            .put("cluster.routing.allocation.disk.threshold_enabled", false).put("action.destructive_requires_name", false).build();
        LogConfigurator.configureWithoutConfig(s);
        Environment env = InternalSettingsPreparer.prepareEnvironment(s, Map.of(), home.resolve("config"), () -> "contract-1");
        List<Class<? extends Plugin>> plugins = new ArrayList<>();
        for (String c : MODULES) plugins.add(Class.forName(c).asSubclass(Plugin.class));
        EsNode n = new EsNode(env, plugins);
        CountDownLatch stop = new CountDownLatch(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> { try { n.close(); } catch (Exception e) { e.printStackTrace(); } stop.countDown(); }));
        n.start(); System.out.println("STARTED"); stop.await();
    }
}
